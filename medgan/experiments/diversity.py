"""Diversity and quality against sample size (arXiv 2308.02505): what will be run and measured, written down before anything runs.

One network per class; as many synthetic images as the class has real ones; at each size, so many of both are compared. The design names every
command line, every size and every test, and the smallest p that each test can give.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from medgan import runs
from medgan.config import setting, to_json
from medgan.errors import ConfigError, DataError, InputError, ResumeError
from medgan.networks import NETWORKS
from medgan.statistics import MOST_RELABELINGS, smallest_p

DESIGN = "design.json"
DATA, RUNS, SYNTHETIC, MEASURES, RESULTS, CACHE = "data", "runs", "synthetic", "measures", "results", "cache"
"""Folders of an experiment: a file or folder in each for every class."""
DRAWS = 9_999
"""Relabelings of a test that has too many to list."""
LEVEL = 0.05
PER_PAIR = ("ms_ssim", "cosine_pixels")
"""Metrics whose values are those of single pairs of images; the others' are those of disjoint parts."""

OF_GENERATOR = ("ppl2_wend",)
"""Metrics of the generator itself, which have no values to test."""

PRESET_OF = {"dcgan": "paper-2308.02505", "stylegan2": "auto"}
"""Training preset of a family, where the options of train name none."""


@dataclass(frozen=True, kw_only=True)
class DiversityConfig:
    """Settings of `medgan diversity run`."""

    family: str = setting("dcgan", "GAN family, one network for each class", choices=NETWORKS.names())
    sizes: tuple[float, ...] = setting((25.0, 50.0, 75.0, 100.0), "sample sizes in percent of the class, real and synthetic 1 : 1")
    size: int = setting(0, "side in pixels to which MedMNIST and Fashion-MNIST files are prepared; 0 leaves it; data sets have theirs")
    fit: str = setting("", "resize or only pad those files to --size, instead of their recipe's way", choices=("", "resize", "pad"))
    metrics: tuple[str, ...] = setting(
        ("ms_ssim", "cosine_pixels", "fid", "kid", "precision_inception", "recall_inception"),
        "what is measured of each class at each size",
        metavar="A,B",
    )
    pairs: int = setting(1000, "most disjoint pairs of images of a set, for ms_ssim and cosine distances", label="Image pairs")
    stable: float = setting(0.1, "a figure is stable where its 95 % interval reaches at most this share of it to either side")
    batch: int = setting(32, "images per forward pass of a measurement; does not change the result", label="Evaluation batch")
    seed: int = setting(0, "seed of the trainings, the order of images, and the tests")

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) <= 0 or max(self.sizes) > 100:
            raise ConfigError("--sizes are percentages above 0, at most 100", fix="--sizes 25,50,75,100")
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigError("--sizes do not rise", fix="--sizes 25,50,75,100")
        if not self.metrics:
            raise ConfigError("--metrics names no metric", fix="--metrics ms_ssim,cosine_pixels,fid")
        if self.pairs < 2 or self.batch < 1 or self.seed < 0:
            raise ConfigError("--pairs is 2 or more, --batch 1 or more, --seed 0 or more")
        if not 0 < self.stable < 1:
            raise ConfigError(f"--stable {self.stable:g} is not between 0 and 1", fix="--stable 0.1")


@dataclass(frozen=True, kw_only=True)
class ClassOf:
    """One class of the experiment.

    Attributes:
        modality: What it belongs to: comparisons within it and beyond it are told apart.
        name: Of the class; empty where a modality is one set.
        path: Its images.
    """

    modality: str
    name: str
    path: Path

    @property
    def title(self) -> str:
        """`xray/normal`."""
        return f"{self.modality}/{self.name}" if self.name else self.modality

    @property
    def key(self) -> str:
        """Name of its folders and files: `xray-normal`."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.title).strip("-.").lower()


def classes_of(words: Sequence[str]) -> list[ClassOf]:
    """`MODALITY/CLASS=PATH` or `NAME=PATH` for each class.

    Raises:
        ConfigError: Not of that form, or two classes of one name.
        InputError: A path names nothing.
    """
    found = []
    for place, word in enumerate(words, 1):
        title, equals, path = word.partition("=")
        modality, _, name = title.partition("/")
        if not equals or not path or not re.search(r"[A-Za-z0-9]", modality) or "/" in name:
            raise ConfigError(f"--data number {place} is not MODALITY/CLASS=PATH", fix="--data xray/normal=normal.zip")
        found.append(ClassOf(modality=modality, name=name, path=Path(path)))
    check_classes(found)
    for one in found:
        if not one.path.exists():
            raise InputError(f"--data {one.title} names nothing that exists", fix="medgan prepare SCANS DATA.zip makes a dataset")
    return found


def check_classes(classes: Sequence[ClassOf]) -> None:
    """Refuse two classes of one name, or of names that would have one folder.

    Raises:
        ConfigError: With all of them.
    """
    keys = [one.key for one in classes]
    if twice := sorted({one.title for one in classes if keys.count(one.key) > 1}):
        raise ConfigError(f"two classes have one name: {', '.join(twice)}", fix="another MODALITY/CLASS for one of them")


def count_at(images: int, percent: float) -> int:
    """How many of `images` a size is, rounded half up."""
    return math.floor(images * percent / 100 + 0.5)


def in_part_at(counts: Mapping[str, int], percent: float, parts: int) -> int:
    """Images of a part at a size: the same for all classes, so that an FID's bias is that of one N."""
    return min(count_at(images, percent) for images in counts.values()) // parts


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A planned test.

    Attributes:
        metric: Whose values.
        percent: Size.
        one: `CLASS synthetic` or `CLASS real`.
        other: The same.
        relation: `synthetic against real`, `within a modality`, or `between modalities`.
        n: Values on either side.
    """

    metric: str
    percent: float
    one: str
    other: str
    relation: str
    n: tuple[int, int]

    @property
    def smallest_p(self) -> float:
        """The smallest p that it can give."""
        n1, n2 = self.n
        return smallest_p(n1, n2) if math.comb(n1 + n2, n1) <= MOST_RELABELINGS else 2 / (DRAWS + 1)


def comparisons(config: DiversityConfig, counts: Mapping[str, int], *, parts: int, fewest_in_part: int) -> list[Comparison]:
    """The tests of an experiment: each class's synthetic images against its real ones, and synthetic images of classes in pairs.

    Args:
        config: Settings.
        counts: Images of each class by `MODALITY/CLASS`.
        parts: Parts of a set, for metrics that are no mean over pairs.
        fewest_in_part: With fewer images in a part those metrics have no test.
    """
    found = []
    for metric in config.metrics:
        for percent in config.sizes:
            if metric in PER_PAIR:
                n = {name: min(count_at(images, percent) // 2, config.pairs) for name, images in counts.items()}
                for name in counts:
                    sides = (f"{name} synthetic", f"{name} real")
                    found.append(
                        Comparison(
                            metric=metric,
                            percent=percent,
                            one=sides[0],
                            other=sides[1],
                            relation="synthetic against real",
                            n=(n[name], n[name]),
                        )
                    )
            elif metric not in OF_GENERATOR and in_part_at(counts, percent, parts) >= fewest_in_part:
                n = dict.fromkeys(counts, parts)
            else:
                continue
            for one, other in combinations(counts, 2):
                relation = "within a modality" if one.split("/")[0] == other.split("/")[0] else "between modalities"
                found.append(
                    Comparison(
                        metric=metric,
                        percent=percent,
                        one=f"{one} synthetic",
                        other=f"{other} synthetic",
                        relation=relation,
                        n=(n[one], n[other]),
                    )
                )
    return [test for test in found if min(test.n) >= 2]


def design(
    config: DiversityConfig,
    classes: Sequence[Mapping[str, Any]],
    *,
    parts: int,
    fewest_in_part: int,
) -> dict[str, Any]:
    """What will be run and measured, as JSON values.

    Args:
        config: Settings.
        classes: Of each class `name`, `key`, `modality`, `images`, `dataset` (identity), `words` and `commands` to run, and its `training` settings.
        parts: See `comparisons`.
        fewest_in_part: See `comparisons`.

    Raises:
        DataError: A class has fewer images than its smallest sample needs.
    """
    counts = {one["name"]: int(one["images"]) for one in classes}
    least = min(config.sizes)
    small = [f"{name} {count_at(images, least)} of {images}" for name, images in counts.items() if count_at(images, least) < FEWEST]
    if small:
        raise DataError(
            f"at {least:g} % a class has fewer than the {FEWEST} images that its metrics need: {', '.join(small)}",
            fix="a larger smallest --sizes",
        )
    planned = comparisons(config, counts, parts=parts, fewest_in_part=fewest_in_part)
    families = {metric: [test for test in planned if test.metric == metric] for metric in config.metrics}
    notes = []
    for metric, tests in families.items():
        # Holm's first step: the smallest p times the number of tests.
        hopeless = sorted({f"{test.percent:g} %" for test in tests if test.smallest_p * len(tests) > LEVEL})
        if metric in OF_GENERATOR:
            notes.append(f"{metric}: no test, because it is one figure of a generator")
        elif not tests:
            notes.append(f"{metric}: no test, because a tenth of the smallest class has fewer than {fewest_in_part} images at every size")
        elif hopeless:
            notes.append(
                f"{metric}: tests at {', '.join(hopeless)} can hardly be significant after Holm's correction over {len(tests)} tests"
            )
    return {
        "experiment": "diversity",
        "source": "arXiv 2308.02505",
        "settings": to_json(config),
        "classes": [dict(one) for one in classes],
        "samples": [
            {
                "percent": percent,
                "images": {name: count_at(images, percent) for name, images in counts.items()},
                "in_part": in_part_at(counts, percent, parts),
            }
            for percent in config.sizes
        ],
        "tests": [
            {
                "metric": t.metric,
                "percent": t.percent,
                "one": t.one,
                "other": t.other,
                "relation": t.relation,
                "n": list(t.n),
                "smallest_p": t.smallest_p,
            }
            for t in planned
        ],
        "correction": "Holm over all tests of one metric",
        "level": LEVEL,
        "notes": notes,
    }


PLACES = ("words", "commands")
"""Of a class: what says where things lie."""

FEWEST = 8
"""Images of a sample: precision and its kin need four, and a mean over pairs with an interval four pairs."""


def write_design(made: Mapping[str, Any], out: Path) -> None:
    """Write a design into its folder, or find it there.

    Raises:
        ResumeError: The folder holds another design; each difference is named.
    """
    path = out / DESIGN
    if path.exists():
        before = read_design(out)
        if differing := differences(before, made):
            raise ResumeError(
                f"the folder holds another design: {'; '.join(differing)}", fix="another --out, or the settings and data of the one there"
            )
    # A path of a data set may name a patient; a dry run prints it, a file that is passed on does not.
    classes = [{name: value for name, value in one.items() if name not in PLACES} for one in made["classes"]]
    runs.write_json(path, {**made, "classes": classes})


def read_design(out: Path) -> dict[str, Any]:
    """The design in a folder.

    Raises:
        InputError: There is none.
        DataError: It cannot be read, or is of another experiment.
    """
    try:
        found = json.loads((out / DESIGN).read_text(encoding="utf-8"))
        if found["experiment"] != "diversity":
            raise KeyError
    except FileNotFoundError:
        raise InputError("--out holds no design", fix="medgan diversity run makes one") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError("the design in --out is not one of medgan diversity", fix="another --out") from None
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two designs differ, one phrase each."""
    found = [
        f"{name} {before['settings'].get(name)} -> {value}"
        for name, value in now["settings"].items()
        if before["settings"].get(name) != value
    ]
    old, new = ({one["name"]: one for one in made["classes"]} for made in (before, now))
    found += [f"class {name} is gone" for name in old if name not in new] + [f"class {name} is new" for name in new if name not in old]
    for name in [name for name in new if name in old]:
        one, other = old[name], new[name]
        if one["dataset"] != other["dataset"]:
            found.append(f"the images of {name}")
        found += [
            f"{name}: {setting_name} {one['training'].get(setting_name)} -> {value}"
            for setting_name, value in other["training"].items()
            if one["training"].get(setting_name) != value
        ]
    return found


def with_class(one: ClassOf, name: str) -> ClassOf:
    """One class of a file that holds several."""
    return replace(one, name=name)
