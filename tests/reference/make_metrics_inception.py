"""Writes metrics_inception.json with code that shares nothing with medgan: run by hand, once, with the path of default_1.pt.

The network is the publisher's TorchScript (run here, on a developer's machine, as the independent implementation; medgan never runs
it), the resize of TensorFlow 1 is a loop in float64, the covariance is numpy's and the matrix root scipy's.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import sqrtm

from tests.metrics.phantoms import waves

network = torch.jit.load(sys.argv[1]).eval()


def tf1(image: np.ndarray) -> np.ndarray:
    size = image.shape[-1]
    result = np.zeros((299, 299))
    for i in range(299):
        for j in range(299):
            y, x = i * size / 299, j * size / 299
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, size - 1), min(x0 + 1, size - 1)
            top = image[y0, x0] + (image[y0, x1] - image[y0, x0]) * (x - x0)
            bottom = image[y1, x0] + (image[y1, x1] - image[y1, x0]) * (x - x0)
            result[i, j] = top + (bottom - top) * (y - y0)
    return result


def features(images: np.ndarray, resize: str) -> np.ndarray:
    if resize == "tf1":
        x = torch.tensor(np.array([[(tf1(c.astype(float)) - 128) / 128 for c in image] for image in images])).float()
    else:
        x = (
            torch.nn.functional.interpolate(torch.tensor(images).float() / 255, size=(299, 299), mode="bilinear", align_corners=False) * 2
            - 1
        )
    with torch.no_grad():
        return network(x.repeat(1, 3, 1, 1) if x.shape[1] == 1 else x).double().numpy()


def fid(a: np.ndarray, b: np.ndarray) -> float:
    difference = a.mean(0) - b.mean(0)
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(difference @ difference + np.trace(sa + sb - 2 * sqrtm(sa @ sb).real))


result: dict[str, object] = {"torch": torch.__version__, "images": "tests.metrics.phantoms.waves"}
for rule in ("tf1", "pytorch-fid"):
    grey, other = features(waves(8), rule), features(waves(6, first=50), rule)
    colour = features(waves(1, size=61, channels=3), rule)
    result[rule] = {
        "grey_40_first_16": [round(v, 7) for v in grey[0, :16].tolist()],
        "grey_40_sum": grey[0].sum(),
        "colour_61_first_16": [round(v, 7) for v in colour[0, :16].tolist()],
        "fid_8_against_6": fid(grey, other),
    }
Path(__file__).with_name("metrics_inception.json").write_text(json.dumps(result, indent=1) + "\n")
