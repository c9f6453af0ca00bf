"""Seeds to images: each image depends on its own seed alone, to the last bit, whatever is made beside it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from medgan.data.dataset import ZIP_TIME
from medgan.data.sheet import contact_sheet
from medgan.errors import ConfigError
from medgan.networks.stylegan2 import NoiseMode
from medgan.progress import Step, nothing
from medgan.runs import atomic, write_text
from medgan.sampling.dicom import dicom_bytes
from medgan.sampling.formats import marks, png_bytes, write_png

T = TypeVar("T")

# Images that go through a network together, always this many. The order of additions in a matrix product depends on the
# batch's size, but not on an image's place in it nor on its neighbours (docs/decisions/0016-same-pixels.md).
CPU_GROUP = 4
CUDA_GROUP = 16
CUDA_GROUP_PIXELS = 2**22
SHEET_IMAGES = 64
NOISES = ("random", "const", "none")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How images are drawn from their seeds.

    Args:
        psi: Truncation; 1 is none, 0 the mean image.
        cutoff: Number of style rows that are truncated, from the coarsest; 0 is all.
        noise: `random` (from the image's own seed), `const` (the network's stored noise) or `none`.
        category: Class of every image; None gives each seed of a conditional generator a class of its own, all alike likely.
        among: Labels (M, c_dim) of a dataset, of which each seed draws one: classes are then as frequent as there. A comparison with
            that dataset needs it, and labels that are vectors; `category` is not looked at.
    """

    psi: float = 1.0
    cutoff: int = 0
    noise: str = "random"
    category: int | None = None
    among: Tensor | None = field(default=None, compare=False)

    def check(self, G: nn.Module) -> None:
        """Refuse what this generator has not.

        Raises:
            ConfigError: A class of an unconditional generator or beyond its classes; truncation without styles, or beyond their rows.
        """
        classes, rows = int(G.c_dim), int(getattr(G, "num_ws", 0))  # type: ignore[arg-type]
        if self.category is not None and not classes:
            raise ConfigError(f"--class {self.category}, but this generator was trained without classes", fix="leave --class out")
        if self.category is not None and self.category >= classes:
            raise ConfigError(f"--class {self.category} is not a class of this generator", fix=f"--class 0 to {classes - 1}, or all")
        if not rows and (self.psi != 1 or self.cutoff):
            raise ConfigError(f"--psi {self.psi:g}: this generator has no styles to truncate", fix="--psi 1 without --psi-cutoff")
        if self.cutoff > rows:
            raise ConfigError(f"--psi-cutoff {self.cutoff} is beyond this generator's {rows} style rows", fix=f"--psi-cutoff 0 to {rows}")

    def classes(self, G: nn.Module, seeds: Sequence[int]) -> list[int] | None:
        """The class of each seed; None for an unconditional generator."""
        if not G.c_dim:
            return None
        if self.category is not None:
            return [self.category] * len(seeds)
        return [int(np.random.RandomState(seed).randint(int(G.c_dim))) for seed in seeds]  # type: ignore[arg-type]

    def labels(self, G: nn.Module, seeds: Sequence[int]) -> Tensor | None:
        """Labels (N, c_dim), one-hot unless drawn from vectors; None for an unconditional generator."""
        if G.c_dim and self.among is not None:
            return self.among[[int(np.random.RandomState(seed).randint(len(self.among))) for seed in seeds]]
        classes = self.classes(G, seeds)
        return None if classes is None else torch.eye(int(G.c_dim))[classes]  # type: ignore[arg-type]

    def noise_of(self, seeds: Sequence[int]) -> NoiseMode:
        """The noise of images with these seeds, as the synthesis takes it."""
        return [torch.Generator().manual_seed(seed) for seed in seeds] if self.noise == "random" else self.noise

    def facts(self) -> dict[str, object]:
        """What the pictures say of it."""
        return {"psi": f"{self.psi:g}", "psi_cutoff": self.cutoff or "", "noise": self.noise}


def to_uint8(images: Tensor) -> Tensor:
    """Images in about [-1, 1] to 8 bit, as the official metrics do it: clamp(127.5 x + 128, 0, 255), truncated."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def latent(seed: int, z_dim: int) -> np.ndarray:
    """The latent of a seed, (z_dim,): as the official generator script draws it."""
    return np.random.RandomState(seed).randn(z_dim)


def group_size(G: nn.Module, device: torch.device | str) -> int:
    """How many images always go through G together: fixed by device and image size alone, so that pixels are."""
    if torch.device(device).type == "cpu":
        return CPU_GROUP
    return max(min(CUDA_GROUP, CUDA_GROUP_PIXELS // int(G.img_resolution) ** 2), 1)  # type: ignore[arg-type]


def groups(items: Sequence[T], size: int) -> Iterator[tuple[list[T], int]]:
    """Items in groups of exactly `size`, the last one filled up with its last item; with each, how many are meant."""
    for start in range(0, len(items), size):
        some = list(items[start : start + size])
        yield some + some[-1:] * (size - len(some)), len(some)


def sample(G: nn.Module, seeds: Sequence[int], drawing: Drawing | None = None, *, device: torch.device | str = "cpu") -> np.ndarray:
    """Synthetic images of the given seeds; an image is the same to the last bit, alone or among others.

    Args:
        G: Generator on `device`, in eval mode.
        seeds: One per image.
        drawing: How; untruncated, with each seed's own noise and class, when None.
        device: Where G is.

    Returns:
        uint8 (N, C, H, W).
    """
    drawing = drawing or Drawing()
    parts = []
    with torch.inference_mode():
        for some, meant in groups(seeds, group_size(G, device)):
            z = torch.from_numpy(np.stack([latent(s, int(G.z_dim)) for s in some])).float().to(device)  # type: ignore[arg-type]
            labels = drawing.labels(G, some)
            labels = None if labels is None else labels.to(device)
            noise = drawing.noise_of(some)
            images = G(z, labels, truncation_psi=drawing.psi, truncation_cutoff=drawing.cutoff or None, noise_mode=noise)
            parts.append(to_uint8(images)[:meant].cpu().numpy())
    return np.concatenate(parts)


def styles(G: nn.Module, z: np.ndarray, labels: Tensor | None, drawing: Drawing, *, device: torch.device | str = "cpu") -> Tensor:
    """Truncated styles (N, num_ws, w_dim) of latents (N, z_dim), each as `sample` has them."""
    parts = []
    with torch.inference_mode():
        for some, meant in groups(range(len(z)), group_size(G, device)):
            some_z = torch.from_numpy(z[some]).float().to(device)
            c = None if labels is None else labels[some].to(device)
            ws = G.mapping(some_z, c, truncation_psi=drawing.psi, truncation_cutoff=drawing.cutoff or None)  # type: ignore[operator]
            parts.append(ws[:meant])
    return torch.cat(parts)


def render(
    G: nn.Module, ws: Tensor, noise_seeds: Sequence[int], drawing: Drawing, *, device: torch.device | str = "cpu", step: Step = nothing
) -> np.ndarray:
    """Images uint8 (N, C, H, W) of styles (N, num_ws, w_dim), with random noise from one seed per image."""
    parts: list[np.ndarray] = []
    with torch.inference_mode():
        for some, meant in groups(range(len(ws)), group_size(G, device)):
            noise = drawing.noise_of([noise_seeds[i] for i in some])
            parts.append(to_uint8(G.synthesis(ws[some], noise_mode=noise))[:meant].cpu().numpy())  # type: ignore[operator]
            step(sum(map(len, parts)), len(ws))
    return np.concatenate(parts)


def numbered(
    G: nn.Module, first_seed: int, *, device: torch.device | str = "cpu", labels: Tensor | None = None
) -> Callable[[int, int], np.ndarray]:
    """The images of a generator by number, as a metric asks for them: `draw(start, count)` gives start ... start + count - 1.

    Image i is the one of seed `first_seed` + i, untruncated (psi 1), as FID is defined.

    Args:
        G: Generator on `device`, in eval mode.
        first_seed: Of image 0.
        device: Where G is.
        labels: (M, c_dim) of the set it is compared with: each image draws one, as the official metrics do; None draws all classes alike.
    """
    drawing = Drawing(among=labels)

    def draw(start: int, count: int) -> np.ndarray:
        first = first_seed + start
        return sample(G, range(first, first + count), drawing, device=device)

    return draw


class Archive:
    """Pictures into a folder, or into one zip beside it, with the SHA-256 of each.

    Args:
        out: Folder.
        form: `zip` for one archive called `name`.zip, anything else for single files.
        name: See form.
    """

    def __init__(self, out: Path, form: str, name: str) -> None:
        self.out, self._stack, self._archive = out, contextlib.ExitStack(), None
        if form == "zip":
            temporary = self._stack.enter_context(atomic(out / f"{name}.zip"))
            self._archive = self._stack.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.__exit__(*problem)

    def add(self, name: str, content: bytes) -> str:
        """Write one file; returns its SHA-256."""
        if self._archive is not None:
            self._archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), content)
        else:
            with atomic(self.out / name) as file:
                file.write_bytes(content)
        return hashlib.sha256(content).hexdigest()


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file with a header, atomically."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, table.getvalue())


def write_images(
    G: nn.Module,
    metadata: dict[str, Any],
    seeds: Sequence[int],
    out: Path,
    *,
    form: str,
    drawing: Drawing | None = None,
    device: torch.device | str = "cpu",
    step: Step = nothing,
) -> dict[str, Any]:
    """Generate images into a folder: PNG files, one zip of them or DICOM files, manifest.csv and contact_sheet.png.

    Memory holds one group and the sheet's images, whatever the number of seeds.

    Args:
        G: Generator on `device`.
        metadata: Its bundle's metadata.
        seeds: One per image.
        out: Folder; made when missing.
        form: `png` or `dicom` for single files, `zip` for synthetic.zip of PNGs.
        drawing: How the images are drawn; as `sample`'s default when None.
        device: Where G is.
        step: Told of progress.

    Returns:
        A summary: number of images, form, truncation, noise, class, model.

    Raises:
        ConfigError: The generator has no such class or style rows.
    """
    drawing = drawing or Drawing()
    drawing.check(G)
    model = metadata["medgan"]["model_sha256"]
    rows: list[list[object]] = []
    first: list[np.ndarray] = []
    at_once = group_size(G, device)
    with Archive(out, form, "synthetic") as archive:
        for start in range(0, len(seeds), at_once):
            some = list(seeds[start : start + at_once])
            classes: Sequence[object] = drawing.classes(G, some) or [""] * len(some)
            for seed, category, image in zip(some, classes, sample(G, some, drawing, device=device), strict=True):
                said = marks(model, seed=seed, **drawing.facts(), **{"class": category})
                name = f"seed{seed:010d}.{'dcm' if form == 'dicom' else 'png'}"
                digest = archive.add(name, dicom_bytes(image, said, metadata) if form == "dicom" else png_bytes(image, said))
                rows.append([name, seed, drawing.psi, drawing.cutoff, category, drawing.noise, digest])
                if len(first) < SHEET_IMAGES:
                    first.append(image)
            step(len(rows), len(seeds))
    write_table(out / "manifest.csv", ("file", "seed", "psi", "psi_cutoff", "class", "noise", "sha256"), rows)
    write_png(out / "contact_sheet.png", contact_sheet(np.stack(first), columns=8), marks(model, **drawing.facts()))
    return {"images": len(rows), "format": form, **summary_of(drawing), "model_sha256": model}


def summary_of(drawing: Drawing) -> dict[str, Any]:
    """What a command's result says of the drawing."""
    kept = "all" if drawing.category is None else drawing.category
    return {"psi": drawing.psi, "psi_cutoff": drawing.cutoff, "class": kept, "noise": drawing.noise}
