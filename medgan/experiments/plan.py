"""A plan: the runs, seeds and tests of a design on given data, written down before anything runs, and compared with what is there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgan.experiments.ablation import EXTRA, Design, Experiment
from medgan.statistics import smallest_p

PLAN = "design.json"
RUNS = "runs"


@dataclass(frozen=True, kw_only=True)
class PlannedData:
    """A set that runs train on: what it is, not where it lies."""

    name: str
    identity: str
    images: int
    resolution: int
    recipe: str


@dataclass(frozen=True, kw_only=True)
class PlannedExperiment:
    """An experiment with the set and every setting of its runs but the seed."""

    name: str
    title: str
    data: str
    repeats: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run: which experiment, the how-manieth repeat (from 1), its seed."""

    name: str
    experiment: str
    repeat: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class PlannedTest:
    """A test, and what it can show at best. Tests of one family, those anew and the others, are corrected together.

    Attributes:
        a: Experiment.
        b: The other one.
        n_a: Its runs.
        n_b: Its runs.
        smallest_p: The smallest p any outcome can have.
        smallest_adjusted: The same after Holm's correction, where this test's p is the smallest of the family.
        anew: Whether it compares networks measured anew against the main set, instead of the best figures of the runs.
    """

    a: str
    b: str
    n_a: int
    n_b: int
    smallest_p: float
    smallest_adjusted: float
    anew: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A design applied to data: every run, seed and test, written down before anything runs.

    Attributes:
        design: Its name.
        preset: Of `medgan train`.
        metric: What runs are compared by: the best value of each.
        alpha: Level of the tests.
        data: The sets.
        experiments: With their settings.
        runs: In the order in which they are started.
        tests: Two families: of best figures, and of figures measured anew.
        notes: What to know before running.
    """

    design: str
    preset: str
    metric: str
    alpha: float
    data: tuple[PlannedData, ...]
    experiments: tuple[PlannedExperiment, ...]
    runs: tuple[PlannedRun, ...]
    tests: tuple[PlannedTest, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As design.json has it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """From design.json; further fields are left out.

        Raises:
            KeyError, TypeError: It is no such file.
        """
        kinds = {"data": PlannedData, "experiments": PlannedExperiment, "runs": PlannedRun, "tests": PlannedTest}
        plain = {one.name: values[one.name] for one in dataclasses.fields(cls) if one.name not in kinds}
        nested = {name: tuple(kind(**one) for one in values[name]) for name, kind in kinds.items()}
        return cls(**{**plain, **nested, "notes": tuple(values["notes"])})


def runs_of(design: Design, chosen: Sequence[tuple[Experiment, str, int]]) -> list[PlannedRun]:
    """Every run of what `arms` gave, each with the next seed."""
    pairs = [(experiment.name, repeat) for experiment, _, repeats in chosen for repeat in range(1, repeats + 1)]
    return [
        PlannedRun(name=f"{experiment}-{repeat}", experiment=experiment, repeat=repeat, seed=seed)
        for seed, (experiment, repeat) in enumerate(pairs, start=design.seed)
    ]


def plan_of(
    design: Design,
    chosen: Sequence[tuple[Experiment, str, int]],
    *,
    metric: str,
    data: Sequence[PlannedData],
    settings: Mapping[str, Mapping[str, Any]],
) -> Plan:
    """Every run with its seed, and every test with what it can show.

    Args:
        design: The design.
        chosen: What `arms` gave.
        metric: The first of the runs' metrics.
        data: The sets by name.
        settings: Experiment -> all settings of its runs, as JSON values.
    """
    count = {experiment.name: repeats for experiment, _, repeats in chosen}
    tests = (*_tests(design.tests, count, anew=False), *_tests(design.anew, count, anew=True))
    planned = tuple(
        PlannedExperiment(
            name=experiment.name,
            title=experiment.title or experiment.name,
            data=name,
            repeats=repeats,
            settings={key: value for key, value in settings[experiment.name].items() if key != "seed"},
        )
        for experiment, name, repeats in chosen
    )
    return Plan(
        design=design.name,
        preset=design.preset,
        metric=metric,
        alpha=design.alpha,
        data=tuple(data),
        experiments=planned,
        runs=tuple(runs_of(design, chosen)),
        tests=tests,
        notes=tuple(_notes(design, tests, chosen)),
    )


def _tests(pairs: Sequence[tuple[str, str]], count: Mapping[str, int], *, anew: bool) -> list[PlannedTest]:
    """One family: the pairs of which both have runs."""
    pairs = [(a, b) for a, b in pairs if a in count and b in count]
    smallest = [smallest_p(count[a], count[b]) for a, b in pairs]
    return [
        PlannedTest(a=a, b=b, n_a=count[a], n_b=count[b], smallest_p=p, smallest_adjusted=min(1.0, p * len(pairs)), anew=anew)
        for (a, b), p in zip(pairs, smallest, strict=True)
    ]


def _notes(design: Design, tests: Sequence[PlannedTest], chosen: Sequence[tuple[Experiment, str, int]]) -> list[str]:
    notes = []
    for anew in (False, True):
        family = [test for test in tests if test.anew is anew]
        if not family:
            continue
        best = min(family, key=lambda test: test.smallest_p)
        text = f"the smallest p of {best.n_a} against {best.n_b} runs is {best.smallest_p:.2g}, after Holm's correction for "
        text += f"{len(family)} test{'s' * (len(family) > 1)} {best.smallest_adjusted:.2g}; the level is {design.alpha:g}"
        if best.smallest_adjusted > design.alpha:
            enough = next((n for n in range(design.repeats, 50) if smallest_p(n, n) * len(family) <= design.alpha), 0)
            text = f"too few repeats for any significance: {text}; --repeats {enough} could show something"
        notes.append(f"{'measured anew: ' * anew}{text}")
    if any(name == EXTRA for _, name, _ in chosen):
        notes.append(
            "figures of runs on the enlarged set are against that set; for a comparison with the others, collect --measure measures networks anew against the main set"
        )
    return notes


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Where two plans differ, each as `field old -> new`; lists are compared place by place, or by their lengths."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        a, b, name = old.get(key), new.get(key), f"{where}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}.")
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(isinstance(one, dict) for one in [*a, *b]):
            for one, other in zip(a, b, strict=True):
                found += differences(one, other, f"{name}[{one.get('name', '')}].")
        elif isinstance(a, list) and isinstance(b, list) and len(a) != len(b):
            found.append(f"{len(a)} {name} -> {len(b)}")
        elif a != b:
            found.append(f"{name} {json.dumps(a)} -> {json.dumps(b)}")
    return found
