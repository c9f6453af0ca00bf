"""What is done to a scan: which slices are kept, how intensities map to grey, which plane, which size.

Torch-free, so that listing recipes is instant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medgan.errors import ConfigError, DataError

PLANES = ("axial", "coronal", "sagittal", "stored")
INTENSITIES = ("window", "percentile", "minmax", "stored", "display")
SOURCES = ("series", "volume", "picture", "stack")
COLOURS = ("refuse", "grey", "keep")
FITS = ("resize", "pad")
SPLITS = ("train", "val", "test", "all")
PAPER_RULES = ("slice-range", "lose-last-slice")

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
    "xray": {"modality": "", "intensity": "display"},
    "png": {"modality": "", "intensity": "stored"},
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """From a scan to grey images, for one data set.

    Args:
        name: Its word on the command line.
        title: One line for people.
        source: Where the rule stands (paper, section).
        modality: DICOM modality asked for; "" takes any.
        sources: What it takes: `series` (DICOM), `volume` (NIfTI, MetaImage, NRRD), `picture` (PNG, JPEG, TIFF), `stack` (.npz, idx).
        files: Patterns of the names of its volumes and pictures, without regard to case; () takes any.
        frames: Which volumes of a 4-D file: "" (none: refused), `all`, `ed-es` (named in Info.cfg beside it), or a number from 0.
        original: Of a DICOM series, whether only original and primary ones are taken (ImageType, PS3.3 C.7.6.1.1.2).
        series: Pattern for the SeriesDescription or ProtocolName of a DICOM series; "" takes any.
        kernel: Pattern for its ConvolutionKernel; "" takes any.
        thickness_mm: Least and greatest SliceThickness; () takes any.
        patient: Regular expression whose first group is the patient, looked for in the file's name, then in its folders; "" for the usual rule.
        table: A list of labels beside the pictures: pattern of its name, columns of file name, labels (`a|b`) and patient; () for none.
        classes: Names of the classes, in the order of their numbers.
        only_class: The one class that is taken; "" takes all.
        labels: Whether dataset.json has the classes, for a conditional network.
        split: Which part of a data set that comes in parts gives the training images.
        intensity: `window` (level, width), `percentile` (of the volume's foreground), `minmax` (of the volume), `stored` (as it is, 0 to
            255), or `display` (as the header of an X-ray says).
        preset: Name of the window preset in use; "" for a window given in numbers.
        level: Window centre in the scan's unit (CT: HU).
        width: Window width, same unit, more than 0 for `window`.
        percentiles: Lower and upper percentile for `percentile`.
        plane: Plane of the images; `stored` takes them as they lie in the file.
        mask_label: Slices are kept where a label map has this value; 0 asks for none.
        mask_name: Slices are kept where a segment of a SEG or RT-STRUCT with this name is; "" asks by number there too. With neither, every
            slice is kept.
        min_mask_pixels: How many pixels of the label a kept slice has at least, counted on the scan's own grid.
        min_foreground: Share of pixels above black below which an image counts as empty; 0 drops only what is all black.
        colour: What becomes of a colour picture: `refuse`, `grey` (its luminance), or `keep`.
        fit: `resize` scales the padded square to `size`; `pad` only pads, and scales what is larger.
        size: Side of the square images in pixels; 0 takes the images' own, padded to the next size that a network takes.
        bits: Of a stored value: 8, or 16 for grey images (the official tools read 8 only).
        paper_images: How many images the paper has, 0 where it does not say.
        paper_rules: What `--paper-compatible` does: `slice-range`, `lose-last-slice`.
        paper_compatible: Whether these rules are in force.
    """

    name: str
    title: str
    source: str
    modality: str = ""
    sources: tuple[str, ...] = ("series", "volume")
    files: tuple[str, ...] = ()
    frames: str = ""
    original: bool = True
    series: str = ""
    kernel: str = ""
    thickness_mm: tuple[float, ...] = ()
    patient: str = ""
    table: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    only_class: str = ""
    labels: bool = False
    split: str = "train"
    intensity: str = "window"
    preset: str = ""
    level: float = 0.0
    width: float = 0.0
    percentiles: tuple[float, float] = (0.5, 99.5)
    plane: str = "axial"
    mask_label: int = 0
    mask_name: str = ""
    min_mask_pixels: int = 1
    min_foreground: float = 0.01
    colour: str = "refuse"
    fit: str = "resize"
    size: int = 512
    bits: int = 8
    paper_images: int = 0
    paper_rules: tuple[str, ...] = ()
    paper_compatible: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (8, 16) or (self.bits == 16 and self.colour == "keep"):
            raise ConfigError(f"--bits {self.bits}: images have 8 bits, or grey ones 16")
        for name, allowed in (("intensity", INTENSITIES), ("colour", COLOURS), ("fit", FITS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} '{getattr(self, name)}' is unknown", fix=f"one of {', '.join(allowed)}")
        if self.intensity == "window" and not self.width > 0:
            raise ConfigError(f"--window {self.level:g} {self.width:g}: the width must be more than 0")
        if self.plane not in PLANES:
            raise ConfigError(f"--plane {self.plane} is unknown", fix=f"one of {', '.join(PLANES)}")
        if self.size and self.size not in SIZES:
            raise ConfigError(f"--size {self.size}: no network family takes it", fix=f"one of {', '.join(map(str, SIZES))}")
        if self.mask_label < 0 or self.min_mask_pixels < 1:
            raise ConfigError("--mask-label and --min-mask-pixels cannot be negative in a recipe")
        if self.frames not in ("", "all", "ed-es") and not self.frames.isdecimal():
            raise ConfigError(f"--frames {self.frames} is unknown", fix="all, ed-es, or a number counted from 0")
        if self.split not in SPLITS:
            raise ConfigError(f"--split {self.split} is unknown", fix=f"one of {', '.join(SPLITS)}")
        if len(self.thickness_mm) not in (0, 2):
            raise ConfigError("--thickness takes two numbers", fix="--thickness 0 3")
        if self.only_class:
            object.__setattr__(self, "only_class", self._class(self.only_class))
        if unknown := {*self.sources} - {*SOURCES} | {*self.paper_rules} - {*PAPER_RULES}:
            raise ConfigError(f"a recipe knows no {', '.join(sorted(unknown))}")

    def _class(self, word: str) -> str:
        """A class given by name, without regard to case, or by number."""
        if not self.classes and "stack" not in self.sources:
            raise ConfigError(f"--class {word}: the recipe {self.name} has no classes")
        names = {name.casefold(): name for name in self.classes} | {str(number): name for number, name in enumerate(self.classes)}
        if self.classes and word.casefold() not in names:
            raise ConfigError(f"--class {word} is unknown", fix=f"one of {', '.join(self.classes)}, or its number from 0")
        if not self.classes and not word.isdecimal():
            raise ConfigError(f"--class {word} is no number", fix="the number of the class, counted from 0")
        return names.get(word.casefold(), word)

    @property
    def by_mask(self) -> bool:
        """Whether label maps select the slices."""
        return bool(self.mask_label or self.mask_name)

    def wants(self, label: str | None) -> bool:
        """Whether an image of a class, or of several as `a|b`, is of the one asked for."""
        return not self.only_class or (label is not None and self.only_class in label.split("|"))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values, in the order of its fields."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote.

        Raises:
            DataError: A field is unknown or missing: another version wrote it.
        """
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        try:
            return cls(**fields)
        except TypeError as error:
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
