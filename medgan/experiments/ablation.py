"""An ablation: experiments that differ in some settings, repeated with seeds of their own, compared by tests that are planned before anything runs.

The design of arXiv 2210.03786 is a table here; others are JSON files of the same shape.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan.errors import ConfigError

MAIN, EXTRA, FURTHER = "data", "extra", "further"


def _is_word(name: object) -> bool:
    return isinstance(name, str) and bool(name) and name.replace("-", "").replace("_", "").isalnum() and name.isascii()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One arm of an ablation.

    Attributes:
        name: Short and unique; its runs are called NAME-1, NAME-2, ...
        title: What tables and figures call it.
        settings: Of `medgan train`, beside those of the design.
        pretrained: Whether it starts from the networks of --pretrained.
        data: The set it trains on: `data`, `extra` (the enlarged one), or `further`: once for each further set, under its name.
    """

    name: str
    title: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    data: str = MAIN


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is compared with what.

    Attributes:
        name: Of the design.
        preset: Of `medgan train`, under the settings.
        settings: Of all runs.
        experiments: The arms; the first is what others are an improvement on.
        tests: Pairs of names, each a two-sided exact permutation test of the best figures; one family under Holm's correction.
        anew: Pairs that train on different sets, the main and the enlarged one, whose best figures are therefore no comparison: their best
            networks are measured anew against the main set. A family of its own.
        repeats: Runs of each experiment; 0 is the design's own.
        further_repeats: Runs of an experiment on each further set.
        seed: Of the first run; each run has the next one.
        alpha: Level of the tests.
    """

    name: str
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    experiments: tuple[Experiment, ...] = ()
    tests: tuple[tuple[str, str], ...] = ()
    anew: tuple[tuple[str, str], ...] = ()
    repeats: int = 5
    further_repeats: int = 1
    seed: int = 0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        names = [experiment.name for experiment in self.experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"the design has two experiments of one name: {', '.join(twice)}", fix="rename one")
        if not names:
            raise ConfigError("the design has no experiments")
        if bad := [name for name in names if not _is_word(name)]:
            raise ConfigError(f"the design has names that are no words: {', '.join(bad)}", fix="letters, digits, - and _")
        if self.repeats < 1 or self.further_repeats < 1:
            raise ConfigError(f"--repeats {min(self.repeats, self.further_repeats)} is less than 1")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"the design's alpha {self.alpha:g} is not between 0 and 1")
        for pairs, sets, words in ((self.tests, {MAIN}, "the main set"), (self.anew, {MAIN, EXTRA}, "the main or the enlarged set")):
            unknown = sorted({name for pair in pairs for name in pair} - {e.name for e in self.experiments if e.data in sets})
            if unknown:
                raise ConfigError(f"the design's tests name what is no experiment on {words}: {', '.join(unknown)}")
            if any(a == b for a, b in pairs) or len({frozenset(pair) for pair in pairs}) < len(pairs):
                raise ConfigError("the design's tests name a pair twice, or an experiment against itself")


# Horizontal flips and ADA are the paper's augmentation; weights of FFHQ its pretraining. All six pairs are compared.
_PLAIN = {"mirror": False, "augment": "none"}
_AUGMENTED = {"mirror": True, "augment": "ada"}
DESIGNS = {
    "paper-2210.03786": Design(
        name="paper-2210.03786",
        preset="paper-2210.03786",
        experiments=(
            Experiment(name="1-baseline", title="Baseline", settings=_PLAIN),
            Experiment(name="2-pretrained", title="Pretrained", settings=_PLAIN, pretrained=True),
            Experiment(name="3-augmented", title="Augmented", settings=_AUGMENTED),
            Experiment(name="4-both", title="Pretrained, augmented", settings=_AUGMENTED, pretrained=True),
            Experiment(name="1-enlarged", title="Baseline, enlarged set", settings=_PLAIN, data=EXTRA),
            Experiment(name="4-both-on", title="Pretrained, augmented", settings=_AUGMENTED, pretrained=True, data=FURTHER),
        ),
        tests=(
            ("1-baseline", "2-pretrained"),
            ("1-baseline", "3-augmented"),
            ("1-baseline", "4-both"),
            ("2-pretrained", "3-augmented"),
            ("2-pretrained", "4-both"),
            ("3-augmented", "4-both"),
        ),
        anew=(("1-baseline", "1-enlarged"),),
    )
}

PUBLISHED = {"ct-liver": "5.22 ± 0.17", "sliver07": "10.78", "chest-xray14": "3.52", "acdc": "21.17", "msd-brain": "5.39"}
"""FID (fid50k_full) of arXiv 2210.03786, abstract, by recipe: pretrained on FFHQ and augmented; the liver set's over five runs."""

PUBLISHED_BY = ("paper-2210.03786", "4-both", "fid50k_full")
"""Design, experiment (also with a further set's name behind it) and metric that those figures stand beside."""


def read_design(name: str, *, settings: Sequence[str]) -> Design:
    """A design by its name in DESIGNS, or from a JSON file of the fields of `Design` and `Experiment`.

    Args:
        name: Name or path.
        settings: Names that `settings` may have: those of `medgan train`.

    Raises:
        ConfigError: No such design, or it has options that nobody knows: all are listed at once.
    """
    if name in DESIGNS:
        return DESIGNS[name]
    path = Path(name)
    if not path.is_file():
        raise ConfigError("--design names neither a design nor a file", fix=f"one of {', '.join(DESIGNS)}, or a JSON file")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError("--design is not a readable JSON file") from None
    arms = found.get("experiments") if isinstance(found, dict) else None
    if not isinstance(arms, list) or not all(isinstance(arm, dict) for arm in arms):
        raise ConfigError("--design holds no list of experiments", fix='{"name": ..., "experiments": [{"name": ...}, ...]}')
    unknown = _unknown(found, Design) + _strange(found.get("settings", {}), settings, "settings.")
    for place, arm in enumerate(arms):
        where = f"experiments[{place}]."
        unknown += [where + one for one in _unknown(arm, Experiment)] + _strange(arm.get("settings", {}), settings, where + "settings.")
    if unknown:
        raise ConfigError(f"--design has unknown options: {', '.join(unknown)}", fix="remove them; settings are those of medgan train")
    try:
        experiments = tuple(Experiment(**arm) for arm in arms)
        pairs = {name: tuple((str(a), str(b)) for a, b in found.get(name, ())) for name in ("tests", "anew")}
        return Design(**{"name": path.stem, **found, **pairs, "experiments": experiments})
    except (TypeError, ValueError):
        raise ConfigError("--design has a value that is not of its type", fix="as docs/how-to/ablation.md shows") from None


def _unknown(values: Mapping[str, Any], cls: type) -> list[str]:
    return sorted(set(values) - {one.name for one in dataclasses.fields(cls)})


def _strange(values: object, known: Sequence[str], where: str) -> list[str]:
    names = set(values) - set(known) if isinstance(values, dict) else {"(no object)"}
    # The seeds are the design's, and what to start from is said on the command line.
    names |= set(values) & {"seed", "pretrained"} if isinstance(values, dict) else set()
    return [where + name for name in sorted(names)]


def arms(design: Design, *, extra: bool, further: Sequence[str]) -> list[tuple[Experiment, str, int]]:
    """The experiments that there is data for: experiment (named after a further set), the set's name, repeats.

    Raises:
        ConfigError: A set that no experiment of the design uses, or that has the name of another.
    """
    used = {experiment.data for experiment in design.experiments}
    if extra and EXTRA not in used:
        raise ConfigError("--extra-data, but the design has no experiment on an enlarged set", fix="leave --extra-data out")
    if further and FURTHER not in used:
        raise ConfigError("--also, but the design has no experiment on further sets", fix="leave --also out")
    wrong = [name for name in further if not _is_word(name) or name in (MAIN, EXTRA)]
    if wrong or len(set(further)) < len(further):
        raise ConfigError(
            f"--also {wrong[0] if wrong else further[0]}: further sets need words of their own as names", fix="--also acdc=ACDC.zip"
        )
    found = []
    for experiment in design.experiments:
        if experiment.data == MAIN or (experiment.data == EXTRA and extra):
            found.append((experiment, experiment.data, design.repeats))
        elif experiment.data == FURTHER:
            found += [(dataclasses.replace(experiment, name=f"{experiment.name}-{name}"), name, design.further_repeats) for name in further]
    return found
