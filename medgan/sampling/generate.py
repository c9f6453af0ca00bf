"""Seeds to images: each image depends on its own seed alone, whatever the batch."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

import medgan
from medgan.data.dataset import ZIP_TIME
from medgan.data.sheet import contact_sheet
from medgan.networks.bundle import DISCLAIMER
from medgan.progress import Step, nothing
from medgan.runs import atomic, write_text


def to_uint8(images: Tensor) -> Tensor:
    """Images in about [-1, 1] to 8 bit, as the official metrics do it: clamp(127.5 x + 128, 0, 255), truncated."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def latent(seed: int, z_dim: int) -> np.ndarray:
    """The latent of a seed, (z_dim,): as the official generator script draws it."""
    return np.random.RandomState(seed).randn(z_dim)


def sample(
    G: nn.Module,
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    batch: int = 16,
    device: torch.device | str = "cpu",
    noise_mode: str = "random",
    c: Tensor | None = None,
) -> np.ndarray:
    """Synthetic images of the given seeds.

    Args:
        G: Generator on `device`, in eval mode.
        seeds: One per image.
        psi: Truncation; 1 is none.
        batch: Images at a time; does not change them but for rounding.
        device: Where G is.
        noise_mode: random (from the image's own seed), const or none.
        c: Labels (len(seeds), c_dim); None gives each seed of a conditional generator a class of its own, all classes alike.

    Returns:
        uint8 (N, C, H, W).
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(seeds), batch):
            some = seeds[start : start + batch]
            z = torch.from_numpy(np.stack([latent(s, G.z_dim) for s in some])).float().to(device)  # type: ignore[arg-type]
            labels = _classes(some, G.c_dim) if c is None else c[start : start + batch]  # type: ignore[arg-type]
            labels = None if labels is None else labels.to(device)
            noise = [torch.Generator().manual_seed(s) for s in some] if noise_mode == "random" else noise_mode
            parts.append(to_uint8(G(z, labels, truncation_psi=psi, noise_mode=noise)).cpu().numpy())
    return np.concatenate(parts)


def numbered(G: nn.Module, first_seed: int, *, device: torch.device | str = "cpu") -> Callable[[int, int], np.ndarray]:
    """The images of a generator by number, as a metric asks for them: `draw(start, count)` gives start ... start + count - 1.

    Image i is the one of seed `first_seed` + i, untruncated (psi 1), as FID is defined.
    """

    def draw(start: int, count: int) -> np.ndarray:
        first = first_seed + start
        return sample(G, range(first, first + count), batch=count, device=device)

    return draw


def _classes(seeds: Sequence[int], c_dim: int) -> Tensor | None:
    """One-hot labels (N, c_dim), each class drawn from its seed; None for an unconditional generator."""
    if not c_dim:
        return None
    return torch.eye(c_dim)[[np.random.RandomState(s).randint(c_dim) for s in seeds]]


def png_bytes(image: np.ndarray, *, seed: int, model_sha256: str) -> bytes:
    """One image (C, H, W) uint8 as PNG that says in its text chunks that it is synthetic."""
    info = PngInfo()
    for key, value in (
        ("synthetic", "true"),
        ("software", f"medgan {medgan.__version__}"),
        ("model", model_sha256),
        ("seed", str(seed)),
        ("disclaimer", DISCLAIMER),
    ):
        info.add_text(key, value)
    buffer = io.BytesIO()
    picture = Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))
    picture.save(buffer, "PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()


def write_images(
    G: nn.Module,
    metadata: dict[str, Any],
    seeds: Sequence[int],
    out: Path,
    *,
    psi: float,
    form: str,
    batch: int = 16,
    device: torch.device | str = "cpu",
    step: Step = nothing,
) -> dict[str, Any]:
    """Generate images into a folder: PNG files or one zip of them, manifest.csv and contact_sheet.png.

    Memory holds one batch and the sheet's images, whatever the number of seeds.

    Args:
        G: Generator on `device`.
        metadata: Its bundle's metadata.
        seeds: One per image.
        out: Folder; made when missing.
        psi: Truncation.
        form: `png` for single files, `zip` for synthetic.zip.
        batch: Images at a time.
        device: Where G is.
        step: Told of progress.

    Returns:
        A summary: number of images, their folder's file names, truncation, model.
    """
    model = metadata["medgan"]["model_sha256"]
    rows: list[list[Any]] = []
    first: list[np.ndarray] = []
    with contextlib.ExitStack() as stack:
        archive = None
        if form == "zip":
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(atomic(out / "synthetic.zip")), "w", zipfile.ZIP_STORED))
        for start in range(0, len(seeds), batch):
            some = list(seeds[start : start + batch])
            for seed, image in zip(some, sample(G, some, psi=psi, batch=batch, device=device), strict=True):
                name, content = f"seed{seed:010d}.png", png_bytes(image, seed=seed, model_sha256=model)
                if archive:
                    archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), content)
                else:
                    with atomic(out / name) as file:
                        file.write_bytes(content)
                rows.append([name, seed, psi, hashlib.sha256(content).hexdigest()])
                if len(first) < 64:
                    first.append(image)
            step(len(rows), len(seeds))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "seed", "psi", "sha256"])
    writer.writerows(rows)
    write_text(out / "manifest.csv", table.getvalue())
    with atomic(out / "contact_sheet.png") as temporary:
        contact_sheet(np.stack(first), columns=8).save(temporary, "PNG")
    return {"images": len(rows), "format": form, "psi": psi, "model_sha256": model}
