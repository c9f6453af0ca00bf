"""A latent walk: a smooth closed loop through the images of some seeds, as moving picture, strip and single frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from medgan.data.sheet import contact_sheet
from medgan.errors import ConfigError
from medgan.progress import Step, nothing
from medgan.sampling.formats import marks, png_bytes, write_gif, write_png
from medgan.sampling.generate import Archive, Drawing, latent, render, styles, summary_of, write_table

STRIP_FRAMES = 12
# All frames are in memory for the GIF: 2 GB at 1024 px.
MOST_FRAMES = 2000


def spline_loop(points: np.ndarray, frames: int) -> np.ndarray:
    """A closed curve through all points, twice continuously differentiable: the periodic cubic spline.

    Args:
        points: (N, ...), N at least 2.
        frames: Steps from one point to the next.

    Returns:
        (N frames, ...) float64; entry i frames is points[i].
    """
    closed = np.concatenate([points, points[:1]]).astype(np.float64)
    curve = CubicSpline(np.arange(len(closed)), closed, axis=0, bc_type="periodic")
    along = curve(np.arange(len(points) * frames) / frames)
    along[::frames] = points
    return along


def sphere_loop(points: np.ndarray, frames: int) -> np.ndarray:
    """A closed path through latents (N, z_dim), each piece a great circle (slerp; Shoemake 1985), the length changing evenly.

    Straight lines would pass nearer to the origin than latents ever lie. Returns (N frames, z_dim); entry i frames is points[i].
    """
    pieces = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        long_a, long_b = np.linalg.norm(a), np.linalg.norm(b)
        angle = np.arccos(np.clip(a @ b / (long_a * long_b), -1, 1))
        for t in np.arange(frames) / frames:
            if angle < 1e-6:
                pieces.append(a + t * (b - a))
                continue
            unit = (np.sin((1 - t) * angle) * a / long_a + np.sin(t * angle) * b / long_b) / np.sin(angle)
            pieces.append(unit * ((1 - t) * long_a + t * long_b))
    return np.stack(pieces)


def walk(
    G: nn.Module,
    seeds: Sequence[int],
    drawing: Drawing,
    *,
    frames: int,
    space: str = "w",
    device: torch.device | str = "cpu",
    step: Step = nothing,
) -> np.ndarray:
    """The frames of a walk through the images of `seeds` and back to the first, uint8 (len(seeds) frames, C, H, W).

    Random noise is that of the first seed in every frame: noise that changed would flicker. Frame 0 is therefore the image
    that `sample` gives the first seed; with other noise than random, every `frames`-th frame is its seed's image.

    Args:
        G: Generator with `mapping` and `synthesis`, on `device`.
        seeds: At least two.
        drawing: Truncation, noise, class.
        frames: From one seed to the next.
        space: `w` walks on a spline through the styles, `z` on great circles through the latents.
        device: Where G is.
        step: Told of progress.
    """
    z = np.stack([latent(seed, int(G.z_dim)) for seed in seeds])  # type: ignore[arg-type]
    labels = drawing.labels(G, seeds)
    ws: Tensor
    if space == "z":
        ws = styles(G, sphere_loop(z, frames), None if labels is None else labels.repeat_interleave(frames, 0), drawing, device=device)
    else:
        points = styles(G, z, labels, drawing, device=device).cpu().numpy()
        ws = torch.from_numpy(spline_loop(points, frames)).float().to(device)
    return render(G, ws, [seeds[0]] * len(ws), drawing, device=device, step=step)


def write_walk(
    G: nn.Module,
    metadata: dict[str, Any],
    seeds: Sequence[int],
    out: Path,
    *,
    form: str,
    drawing: Drawing,
    frames: int,
    space: str,
    device: torch.device | str = "cpu",
    step: Step = nothing,
) -> dict[str, Any]:
    """Write walk.gif, walk_strip.png, the frames (walk/ or walk.zip) and walk.csv, which says what each frame is.

    Args:
        G: Generator on `device`.
        metadata: Its bundle's metadata.
        seeds: Where the walk passes.
        out: Folder; made when missing.
        form: `png` for single frames, `zip` for walk.zip.
        drawing: See `walk`.
        frames: See `walk`.
        space: See `walk`.
        device: Where G is.
        step: Told of progress.

    Returns:
        A summary: number of frames and how they were made.

    Raises:
        ConfigError: Fewer than two seeds, too many frames, or a generator that cannot walk so.
    """
    drawing.check(G)
    if len(seeds) < 2:
        raise ConfigError("--walk needs two seeds or more", fix="--seeds 0-7")
    if len(seeds) * frames > MOST_FRAMES:
        raise ConfigError(
            f"{len(seeds)} seeds with {frames} frames each are more than {MOST_FRAMES} frames",
            fix=f"--seeds 0-{max(MOST_FRAMES // frames, 2) - 1}, or a smaller --walk-frames",
        )
    if not hasattr(G, "synthesis"):
        raise ConfigError("this generator has no styles to walk through", fix="a bundle of the family stylegan2")
    if space == "z" and G.c_dim and drawing.category is None:
        raise ConfigError("--walk-space z does not pass from class to class", fix="--class K, or --walk-space w")
    model = metadata["medgan"]["model_sha256"]
    images = walk(G, seeds, drawing, frames=frames, space=space, device=device, step=step)
    said = marks(model, walk=f"seeds {','.join(map(str, seeds))} in {space}", **drawing.facts(), **{"class": _class(drawing)})
    rows = []
    with Archive(out, form, "walk") as archive:
        for i, image in enumerate(images):
            name = f"frame{i:05d}.png" if form == "zip" else f"walk/frame{i:05d}.png"
            start = i // frames
            digest = archive.add(name, png_bytes(image, said | {"frame": str(i)}))
            rows.append([name, seeds[start], seeds[(start + 1) % len(seeds)], f"{i % frames / frames:g}", digest])
    write_gif(out / "walk.gif", list(images), said)
    strip = images[np.arange(min(STRIP_FRAMES, len(images))) * len(images) // min(STRIP_FRAMES, len(images))]
    write_png(out / "walk_strip.png", contact_sheet(strip, columns=len(strip)), said)
    write_table(out / "walk.csv", ("file", "from_seed", "to_seed", "t", "sha256"), rows)
    return {"frames": len(images), "space": space, "format": form, **summary_of(drawing), "model_sha256": model}


def _class(drawing: Drawing) -> object:
    return "" if drawing.category is None else drawing.category
