"""Style mixing sheets: the images of row seeds with some styles of column seeds (arXiv 1812.04948, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medgan.data.sheet import contact_sheet
from medgan.errors import ConfigError
from medgan.progress import Step, nothing
from medgan.sampling.formats import marks, write_png
from medgan.sampling.generate import Drawing, latent, render, styles, summary_of

MOST_CELLS = 1024
GAP = 4


def style_rows(num_ws: int) -> dict[str, range]:
    """The style rows that steer coarse (4-8 px), middle (16-32 px) and fine (64 px and up) convolutions.

    Row 0 is the convolution of 4 px, rows 2 k - 1 and 2 k are those of 4 2^k px, the last row is the last toRGB's; a toRGB
    in between reads the row of the next resolution's first convolution. Groups that an image size has not are left out.
    """
    convolutions = num_ws - 1
    groups = {"coarse": range(3), "middle": range(3, 7), "fine": range(7, num_ws)}
    kept = {name: range(rows.start, min(rows.stop, convolutions)) for name, rows in groups.items() if rows.start < convolutions}
    last = list(kept)[-1]
    return kept | {last: range(kept[last].start, num_ws)}


def mix(
    G: nn.Module,
    rows: Sequence[int],
    columns: Sequence[int],
    taken: range,
    drawing: Drawing,
    *,
    device: torch.device | str = "cpu",
    step: Step = nothing,
) -> np.ndarray:
    """Images with the styles of a row's seed, but those of a column's seed in the rows `taken`; noise is the row's.

    Args:
        G: Generator with `mapping` and `synthesis`, on `device`.
        rows: Seeds, R of them.
        columns: Seeds, K of them.
        taken: Style rows that come from the column.
        drawing: Truncation, noise, class.
        device: Where G is.
        step: Told of progress.

    Returns:
        uint8 (R, K, C, H, W).
    """
    seeds = [*rows, *columns]
    z = np.stack([latent(seed, int(G.z_dim)) for seed in seeds])  # type: ignore[arg-type]
    ws = styles(G, z, drawing.labels(G, seeds), drawing, device=device)
    mixed = ws[: len(rows), None].repeat(1, len(columns), 1, 1)
    mixed[:, :, list(taken)] = ws[None, len(rows) :, list(taken)]
    images = render(G, mixed.flatten(0, 1), [seed for seed in rows for _ in columns], drawing, device=device, step=step)
    return images.reshape(len(rows), len(columns), *images.shape[1:])


def sheet(corner_rows: np.ndarray, corner_columns: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """One image: the row seeds' images on the left, the column seeds' above, the mixtures between, a white gap after the heads.

    Args:
        corner_rows: (R, C, H, W) uint8.
        corner_columns: (K, C, H, W).
        cells: (R, K, C, H, W).

    Returns:
        (C, (R + 1) H + GAP, (K + 1) W + GAP).
    """
    n_rows, n_columns, c, h, w = cells.shape
    page = np.full((c, (n_rows + 1) * h + GAP, (n_columns + 1) * w + GAP), 255, np.uint8)
    for i, image in enumerate(corner_rows):
        page[:, (i + 1) * h + GAP : (i + 2) * h + GAP, :w] = image
    for j, image in enumerate(corner_columns):
        page[:, :h, (j + 1) * w + GAP : (j + 2) * w + GAP] = image
    page[:, h + GAP :, w + GAP :] = np.concatenate([np.concatenate(list(line), axis=2) for line in cells], axis=1)
    return page


def write_sheets(
    G: nn.Module,
    metadata: dict[str, Any],
    rows: Sequence[int],
    columns: Sequence[int],
    out: Path,
    *,
    drawing: Drawing,
    device: torch.device | str = "cpu",
    step: Step = nothing,
) -> dict[str, Any]:
    """Write style_mix_coarse.png, style_mix_middle.png and style_mix_fine.png, those that the image size has.

    Args:
        G: Generator on `device`.
        metadata: Its bundle's metadata.
        rows: Seeds whose images are changed.
        columns: Seeds whose styles are taken.
        out: Folder; made when missing.
        drawing: Truncation, noise, class.
        device: Where G is.
        step: Told of progress.

    Returns:
        A summary: the sheets' files and how they were made.

    Raises:
        ConfigError: Too many seeds, or a generator without styles.
    """
    drawing.check(G)
    if len(rows) * len(columns) > MOST_CELLS:
        raise ConfigError(f"a style mixing sheet of {len(rows)} x {len(columns)} images is too large", fix="--seeds 0-5 --style-mix 10-15")
    if not hasattr(G, "synthesis"):
        raise ConfigError("this generator has no styles to mix", fix="a bundle of the family stylegan2")
    model = metadata["medgan"]["model_sha256"]
    left, top = (mix(G, seeds, seeds[:1], range(0), drawing, device=device)[:, 0] for seeds in (rows, columns))
    names = []
    for name, taken in style_rows(int(G.num_ws)).items():  # type: ignore[arg-type]
        cells = mix(G, rows, columns, taken, drawing, device=device, step=step)
        said = marks(
            model,
            rows=",".join(map(str, rows)),
            columns=",".join(map(str, columns)),
            styles=f"{name}: rows {taken.start} to {taken.stop - 1} of the column",
            **drawing.facts(),
        )
        names.append(f"style_mix_{name}.png")
        write_png(out / names[-1], contact_sheet(sheet(left, top, cells)[None]), said)
    return {"sheets": names, **summary_of(drawing), "model_sha256": model}
