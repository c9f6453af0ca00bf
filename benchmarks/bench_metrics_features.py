"""How many images a second become Inception features as medgan does it, and on the plain path? Two JSON lines, under two minutes on two cores.

    python benchmarks/bench_metrics_features.py [--images 48] [--size 256] [--batch 32] [--repeats 3] [--device cuda] [--threads 2]

The plain path is the arithmetic of pytorch-fid: float32, contiguous tensors, each convolution followed by its batch norm, 50 images at a time, features copied to NumPy, mean
and covariance at the end. Both sides get the same 8-bit images, weights and resize rule, in turn in one process, and both give features and float64 moments. They must agree
to --tolerance of the largest feature, or the script ends with exit code 1. Needs the weights: `medgan weights fetch inception-2015-12-05`. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
import torch.nn.functional as F
from rows import in_turn, rounded, row, show
from torch import Tensor, nn

from medgan import weights
from medgan.metrics.features import Collector
from medgan.metrics.inception import EPSILON, SIZE, Conv, Inception, InceptionExtractor, resize_tf1

PLAIN_BATCH = 50


class PlainConv(nn.Module):
    """A convolution, its batch norm (Google's graph has an offset and no gain) and ReLU, one after another."""

    def __init__(self, conv: Conv, tensors: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, stride=conv.stride, padding=conv.padding, bias=False)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm2d(conv.out_channels, eps=EPSILON)
        self.conv.weight.data = tensors[f"{name}.weight"].clone()
        state = {"bias": tensors[f"{name}.beta"], "running_mean": tensors[f"{name}.mean"], "running_var": tensors[f"{name}.var"]}
        self.norm.load_state_dict(self.norm.state_dict() | state)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


def plain_network(device: str) -> Inception:
    """The same network with nothing folded."""
    network = Inception()
    tensors = weights.read(weights.find(InceptionExtractor.name, None))
    for name, module in list(network.named_modules()):
        if isinstance(module, Conv):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, PlainConv(module, tensors, name))
    return network.eval().requires_grad_(False).to(device)


@torch.no_grad()
def plain(network: Inception, images: np.ndarray, resize: str, device: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 2048), their mean and covariance."""
    rows = np.empty((len(images), 2048))
    for start in range(0, len(images), PLAIN_BATCH):
        x = torch.from_numpy(images[start : start + PLAIN_BATCH]).repeat(1, 3, 1, 1).to(device)
        if resize == "tf1":
            x = (resize_tf1(x) - 128) / 128
        else:
            x = 2 * F.interpolate(x.float() / 255, size=(SIZE, SIZE), mode="bilinear", align_corners=False) - 1
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            rows[start : start + PLAIN_BATCH] = network(x).cpu().numpy()
    return rows, rows.mean(0), np.cov(rows, rowvar=False)


def ours(extractor: InceptionExtractor, images: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same as an evaluation collects them."""
    collector = Collector(extractor.dim, keep=True)
    for start in range(0, len(images), batch):
        collector.add(extractor(images[start : start + batch]))
    features = collector.finish()
    assert features.rows is not None
    return features.rows, features.mean, features.covariance(ddof=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="images at a time on our side; medgan evaluate's default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resize", choices=("pytorch-fid", "tf1"), default="pytorch-fid")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference, as a share of the largest feature")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves torch's own choice")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.images, args.size, args.batch, args.repeats = 3, 64, 2, 1
    if args.threads:
        torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    # Smooth pictures: noise alone leaves most features near their offset.
    coarse = torch.from_numpy(rng.integers(0, 256, (args.images, 1, 16, 16)).astype(np.float32))
    images = F.interpolate(coarse, size=(args.size, args.size), mode="bicubic").clamp(0, 255).byte().numpy()
    network, extractor = plain_network(args.device), InceptionExtractor(resize=args.resize, device=args.device)
    sides = in_turn(
        {"plain": lambda: plain(network, images, args.resize, args.device), "medgan": lambda: ours(extractor, images, args.batch)},
        repeats=args.repeats,
        warm_ups=0 if args.tiny else 1,
        device=args.device,
    )
    expected, found = sides["plain"].result, sides["medgan"].result
    differences = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(expected, found, strict=True)]
    for name, side in sides.items():
        answer = row(
            f"Inception features and moments of {args.images} images of {args.size} px, {args.resize} resize: {name}",
            args.images / side.median,
            "images/s",
            batch=PLAIN_BATCH if name == "plain" else args.batch,
            ratio=rounded(sides["plain"].median / side.median),
            difference=dict(zip(("features", "mean", "covariance"), map(rounded, differences), strict=True)) if name == "medgan" else {},
            seconds=[rounded(value) for value in side.seconds],
            gpu_memory_mb=round(side.device_bytes / 1e6),
            peak_bytes=side.peak_bytes,
            device=args.device,
        )
        show(answer)
    if max(differences) > args.tolerance:
        sys.exit(f"the sides differ by {max(differences):.1e}, more than {args.tolerance:g}")


if __name__ == "__main__":
    main()
