"""What is done to a scan: which slices are kept, how intensities map to grey, which plane, which size.

Torch-free, so that listing recipes is instant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medgan.errors import ConfigError, DataError

PLANES = ("axial", "coronal", "sagittal")
INTENSITIES = ("window", "percentile", "minmax", "stored")

# StyleGAN2 takes powers of two; DCGAN and the MedMNIST sets 28 px; 16 px is for tests.
SIZES = (16, 28, 32, 64, 128, 256, 512, 1024)

# Level and width as radiologists set them for each organ; LINEAR_EXACT of PS3.3 C.11.2.1.3.2.
# fmt: off
WINDOW_PRESETS: dict[str, tuple[float, float]] = {
    #                 level  width
    "ct-liver":       (  50.0,  350.0),  # arXiv 2210.03786, section 2.2
    "ct-abdomen":     (  50.0,  350.0),
    "ct-mediastinum": (  50.0,  350.0),
    "ct-soft":        (  40.0,  400.0),
    "ct-lung":        (-600.0, 1500.0),
    "ct-bone":        ( 400.0, 1800.0),
    "ct-brain":       (  40.0,   80.0),
}
# fmt: on

OTHER_PRESETS: dict[str, dict[str, Any]] = {
    "mr": {"modality": "MR", "intensity": "percentile", "percentiles": (0.5, 99.5)},
    "mr-minmax": {"modality": "MR", "intensity": "minmax"},
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """From a scan to grey images, for one data set.

    Args:
        name: Its word on the command line.
        title: One line for people.
        source: Where the rule stands (paper, section).
        modality: DICOM modality asked for; "" takes any.
        intensity: `window` (level, width), `percentile` (of the volume's foreground), `minmax` (of the volume), or `stored` (as it is, 0 to 255).
        preset: Name of the window preset in use; "" for a window given in numbers.
        level: Window centre in the scan's unit (CT: HU).
        width: Window width, same unit, more than 0 for `window`.
        percentiles: Lower and upper percentile for `percentile`.
        plane: Plane of the images.
        mask_label: Slices are kept where a label map has this value; 0 keeps every slice.
        min_mask_pixels: How many pixels of the label a kept slice has at least, counted on the scan's own grid.
        size: Side of the square images in pixels.
    """

    name: str
    title: str
    source: str
    modality: str = ""
    intensity: str = "window"
    preset: str = ""
    level: float = 0.0
    width: float = 0.0
    percentiles: tuple[float, float] = (0.5, 99.5)
    plane: str = "axial"
    mask_label: int = 0
    min_mask_pixels: int = 1
    size: int = 512

    def __post_init__(self) -> None:
        if self.intensity not in INTENSITIES:
            raise ConfigError(f"intensity '{self.intensity}' is unknown", fix=f"one of {', '.join(INTENSITIES)}")
        if self.intensity == "window" and not self.width > 0:
            raise ConfigError(f"--window {self.level:g} {self.width:g}: the width must be more than 0")
        if self.plane not in PLANES:
            raise ConfigError(f"--plane {self.plane} is unknown", fix=f"one of {', '.join(PLANES)}")
        if self.size not in SIZES:
            raise ConfigError(f"--size {self.size}: no network family takes it", fix=f"one of {', '.join(map(str, SIZES))}")
        if self.mask_label < 0 or self.min_mask_pixels < 1:
            raise ConfigError("--mask-label and --min-mask-pixels cannot be negative in a recipe")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values, in the order of its fields."""
        return {**dataclasses.asdict(self), "percentiles": list(self.percentiles)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote.

        Raises:
            DataError: A field is unknown or missing: another version wrote it.
        """
        try:
            return cls(**{**values, "percentiles": tuple(values["percentiles"])})
        except (KeyError, TypeError) as error:
            raise DataError("recipe.json was written by another version of medgan", fix="prepare the dataset again") from error


def preset_changes(name: str) -> dict[str, Any]:
    """The recipe fields that a window or intensity preset sets.

    Raises:
        ConfigError: No such preset.
    """
    if name in WINDOW_PRESETS:
        level, width = WINDOW_PRESETS[name]
        return {"intensity": "window", "preset": name, "level": level, "width": width}
    if name in OTHER_PRESETS:
        return {"preset": name, "level": 0.0, "width": 0.0, **OTHER_PRESETS[name]}
    raise ConfigError(f"--window-preset {name} is unknown", fix=f"one of {', '.join([*WINDOW_PRESETS, *OTHER_PRESETS])}")
