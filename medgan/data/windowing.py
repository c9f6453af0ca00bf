"""Intensities to grey: windows in the unit of the scan, and windows drawn from the volume itself.

One mapping holds for a whole volume. Mapping each slice to its own range gives one organ another grey in every slice.
NaN marks pixels without a measurement (padding); it becomes black and is left out of percentiles.
"""

from __future__ import annotations

import torch
from monai.transforms.transform import Transform
from torch import Tensor

from medgan.data.recipe import Recipe
from medgan.errors import DataError

# Percentiles of a CT with 500 slices of 512 px: sorting 1e8 voxels takes 10 s, every 32nd of them 0.3 s.
MOST_VOXELS = 4_000_000


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
        self.center = center
        self.width = width

    def __call__(self, image: Tensor) -> Tensor:
        """Window a float image of any shape to [0, 1]; NaN becomes 0."""
        if self.width == 1:
            return (image > self.center - 0.5).to(image.dtype)
        return torch.nan_to_num((image - (self.center - 0.5)) / (self.width - 1) + 0.5, nan=0.0).clamp(0, 1)

    def inverse(self, image: Tensor) -> Tensor:
        """Intensities of an image in [0, 1]."""
        return (image - 0.5) * (self.width - 1) + self.center - 0.5


class PercentileWindow(Transform):
    """Map two percentiles of a volume to 0 and 1 and clip the rest; for units that mean nothing across scanners, as in MR.

    Args:
        low: Lower percentile, 0 to 100.
        high: Upper percentile, more than `low`.
        foreground: Leave out the volume's lowest value, which is the air around the patient in most MR.
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
            values = values[values > values.min()]
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


def window_for(recipe: Recipe, volume: Tensor) -> Window:
    """The one window that a recipe gives a volume.

    Raises:
        DataError: The recipe asks for the volume's range and the volume is constant.
    """
    if recipe.intensity == "window":
        return Window(recipe.level, recipe.width)
    if recipe.intensity == "percentile":
        return PercentileWindow(*recipe.percentiles).fit(volume)
    if recipe.intensity == "minmax":
        return PercentileWindow(0, 100, foreground=False).fit(volume)
    return Window(127.5, 255)


def to_grey(image: Tensor) -> Tensor:
    """[0, 1] to uint8: scaled by 255 and rounded (half to even), never truncated."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
