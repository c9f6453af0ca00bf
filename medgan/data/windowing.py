"""Intensities to grey: windows in the unit of the scan, and windows drawn from the volume itself.

One mapping holds for a whole volume. Mapping each slice to its own range gives one organ another grey in every slice.
NaN marks pixels without a measurement (padding); it becomes black and is left out of percentiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from monai.transforms.transform import Transform
from torch import Tensor

from medgan.data.photometry import Display
from medgan.data.recipe import Recipe
from medgan.errors import DataError

# Percentiles of a CT with 500 slices of 512 px: sorting 1e8 voxels takes 10 s, every 32nd of them 0.3 s.
MOST_VOXELS = 4_000_000
BINS = 512
RANGE = (0.001, 0.999)


class Grey(Protocol):
    """A mapping from intensities to [0, 1] that holds for a whole volume; `level` and `width` go into the manifest."""

    level: float
    width: float

    def __call__(self, image: Tensor) -> Tensor: ...


class Window(Transform):
    """Map a window of intensities linearly to [0, 1] and clip the rest.

    The LINEAR_EXACT function of DICOM PS3.3 C.11.2.1.3.2: level 50, width 350 maps -125 HU to 0 and 225 HU to 1.

    Args:
        level: Window centre, in the unit of the image (CT: HU).
        width: Window width, same unit, more than 0.
    """

    def __init__(self, level: float, width: float) -> None:
        if not width > 0:
            raise ValueError("a window is wider than 0")
        self.level = level
        self.width = width

    def __call__(self, image: Tensor) -> Tensor:
        """Window a float image of any shape; dtype and device are kept, NaN becomes 0."""
        return torch.nan_to_num((image - self.level) / self.width + 0.5, nan=0.0).clamp(0, 1)

    def inverse(self, image: Tensor) -> Tensor:
        """Intensities of an image in [0, 1]; what was clipped comes back as the window's edge."""
        return (image - 0.5) * self.width + self.level


class DicomWindow(Transform):
    """The LINEAR function of DICOM PS3.3 C.11.2.1.2.1, for windows that stand in a header: (x - (c - 0.5)) / (w - 1) + 0.5.

    Args:
        center: Window Center (0028,1050), after the modality LUT.
        width: Window Width (0028,1051), at least 1; at 1 the function is a step.
    """

    def __init__(self, center: float, width: float) -> None:
        if not width >= 1:
            raise ValueError("Window Width is at least 1 in the LINEAR function")
        self.level = center
        self.width = width

    def __call__(self, image: Tensor) -> Tensor:
        """Window a float image of any shape to [0, 1]; NaN becomes 0."""
        if self.width == 1:
            return (image > self.level - 0.5).to(image.dtype)
        return torch.nan_to_num((image - (self.level - 0.5)) / (self.width - 1) + 0.5, nan=0.0).clamp(0, 1)

    def inverse(self, image: Tensor) -> Tensor:
        """Intensities of an image in [0, 1]."""
        return (image - 0.5) * (self.width - 1) + self.level - 0.5


class Sigmoid(Transform):
    """The SIGMOID function of DICOM PS3.3 C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)).

    Args:
        center: Window Center (0028,1050), after the modality LUT.
        width: Window Width (0028,1051), more than 0.
    """

    def __init__(self, center: float, width: float) -> None:
        if not width > 0:
            raise ValueError("a window is wider than 0")
        self.level = center
        self.width = width

    def __call__(self, image: Tensor) -> Tensor:
        """Window a float image of any shape to [0, 1]; NaN becomes 0."""
        return torch.nan_to_num(torch.sigmoid(4 * (image - self.level) / self.width), nan=0.0)


class Table(Transform):
    """A VOI LUT (PS3.3 C.11.2.1.1): values below the first take its entry, those above the last the last.

    Args:
        entries: Entries scaled to [0, 1].
        first: The measured value of the first entry.
    """

    def __init__(self, entries: tuple[float, ...], first: int) -> None:
        self.entries = torch.tensor(entries, dtype=torch.double)
        self.first = first
        # What it spans, for the manifest.
        self.width = float(len(entries))
        self.level = first + self.width / 2

    def __call__(self, image: Tensor) -> Tensor:
        """Look up a float image of any shape; NaN becomes 0."""
        index = (torch.nan_to_num(image, nan=0.0).round().long() - self.first).clamp(0, len(self.entries) - 1)
        return torch.where(torch.isnan(image), 0.0, self.entries[index].to(image.dtype))


class Inverted(Transform):
    """White and black exchanged after another mapping, for MONOCHROME1 (PS3.3 C.7.6.3.1.2); NaN stays black."""

    def __init__(self, before: Grey) -> None:
        self.before = before
        self.level = before.level
        self.width = before.width

    def __call__(self, image: Tensor) -> Tensor:
        """A float image of any shape in [0, 1]."""
        return torch.where(torch.isnan(image), 0.0, 1 - self.before(image))


class PercentileWindow(Transform):
    """Map two percentiles of a volume to 0 and 1 and clip the rest; for units that mean nothing across scanners, as in MR.

    Args:
        low: Lower percentile, 0 to 100.
        high: Upper percentile, more than `low`.
        foreground: Leave out the air around the patient, see `foreground`.
    """

    def __init__(self, low: float, high: float, *, foreground: bool = True) -> None:
        if not 0 <= low < high <= 100:
            raise ValueError("percentiles rise from 0 to 100")
        self.low = low
        self.high = high
        self.foreground = foreground

    def __call__(self, volume: Tensor) -> Tensor:
        """A whole volume in [0, 1]; slices one by one go through the window that `fit` returns."""
        return self.fit(volume)(volume)

    def fit(self, volume: Tensor) -> Window:
        """The window of one volume, for all its slices; percentiles interpolate linearly.

        Raises:
            DataError: The volume is constant.
        """
        values = volume[torch.isfinite(volume)].flatten()
        if len(values) and self.foreground:
            values = foreground(values)
        if not len(values):
            raise DataError("the volume is constant")
        if self.low == 0 and self.high == 100:
            low, high = values.min(), values.max()
        else:
            values = values[:: -(-len(values) // MOST_VOXELS)]
            low, high = torch.quantile(values.double(), torch.tensor([self.low / 100, self.high / 100], dtype=torch.double))
        if not high > low:
            raise DataError("the volume is constant")
        return Window(level=float(low + high) / 2, width=float(high - low))


def foreground(values: Tensor) -> Tensor:
    """The values of a volume without the air around the patient.

    Air is the most frequent of `BINS` levels where that lies below the mean and in the lowest twentieth of the range, as in MR with
    air or a blanked background around the patient; what is lower goes with it. Taking the lowest value alone for air would leave
    four fifths zeros in a skull-stripped brain, and the brain white. Where the most frequent level is tissue, only the lowest value
    goes. The range leaves out a thousandth at either end: interpolation around a blanked skull undershoots in a few voxels, in a
    BraTS scan by 8 % of the whole range, which would lift the zeros out of its lowest twentieth.
    """
    sample = values[:: -(-len(values) // MOST_VOXELS)].double()
    if not sample.max() > sample.min():
        return values[:0]
    low, high = map(float, torch.quantile(sample, torch.tensor(RANGE, dtype=torch.double)))
    if not high > low:
        low, high = float(sample.min()), float(sample.max())
    counts = torch.histc(sample, BINS, low, high)
    edge = low + (int(counts.argmax()) + 1) * (high - low) / BINS
    is_air = edge <= float(sample.mean()) and edge - low <= (high - low) / 20
    air = edge if is_air else float(values.min())
    return values[values > air]


class SliceRange(Transform):
    """Map each *slice* to its own range and cut to 8 bits, as the papers' published preprocessing does.

    Only for comparison with images made so: an organ's grey then depends on what else lies in the slice.

    Args:
        before: Window that is applied first, or None.
    """

    level = 0.0
    width = 0.0

    def __init__(self, before: Window | None = None) -> None:
        self.before = before

    def __call__(self, image: Tensor) -> Tensor:
        """One slice in [0, 1], whole numbers of 255ths, rounded down; NaN and a constant slice become 0."""
        low = torch.where(torch.isnan(image), torch.inf, image).min()
        values = (torch.nan_to_num(image, nan=float(low)) if self.before is None else self.before(image)).double()
        span = values.max() - values.min()
        return torch.floor((values - values.min()) / span * 255) / 255 if span > 0 else torch.zeros_like(values)


def window_for(recipe: Recipe, volume: Tensor, display: Display | None = None) -> Grey:
    """The one mapping that a recipe gives a volume.

    Args:
        recipe: What is wanted.
        volume: Measured values, NaN where there are none.
        display: What a DICOM header says; MONOCHROME1 is inverted whatever the recipe.

    Raises:
        DataError: The recipe asks for the volume's range and the volume is constant, or for the header's window and that is broken.
    """
    window = _window(recipe, volume, display)
    return Inverted(window) if display and display.inverted else window


def _window(recipe: Recipe, volume: Tensor, display: Display | None) -> Grey:
    if recipe.paper_compatible and "slice-range" in recipe.paper_rules:
        return SliceRange(Window(recipe.level, recipe.width) if recipe.intensity == "window" else None)
    if recipe.intensity == "window":
        return Window(recipe.level, recipe.width)
    if recipe.intensity == "percentile":
        return PercentileWindow(*recipe.percentiles).fit(volume)
    if recipe.intensity == "display" and display:
        if display.fault:
            raise DataError(display.fault)
        if display.function == "TABLE":
            return Table(display.table, display.first)
        if display.function:
            functions: dict[str, Callable[[float, float], Grey]] = {"LINEAR": DicomWindow, "LINEAR_EXACT": Window, "SIGMOID": Sigmoid}
            return functions[display.function](display.center, display.width)
    # A header without a window leaves the range to the viewer: the volume's own.
    if recipe.intensity == "minmax" or (recipe.intensity == "display" and display):
        return PercentileWindow(0, 100, foreground=False).fit(volume)
    # Pictures hold 0 to 255, those of 16 bits too.
    return Window(127.5, 255)


def to_grey(image: Tensor, bits: int = 8) -> Tensor:
    """[0, 1] to uint8 or uint16: scaled by 255 or 65535 and rounded (half to even), never truncated."""
    most = 2**bits - 1
    # float32 holds every whole number up to 65535 exactly.
    return (image * most).round().clamp(0, most).to(torch.uint8 if bits == 8 else torch.uint16)
