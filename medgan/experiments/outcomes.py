"""What the runs of a plan gave: the best figure of each, mean and SD of experiments, the planned tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan import runs
from medgan.errors import DataError
from medgan.experiments.ablation import MAIN, PUBLISHED, PUBLISHED_BY
from medgan.experiments.launchers import Run, standing
from medgan.experiments.plan import RUNS, Plan, PlannedRun, PlannedTest
from medgan.statistics import holm, mean_sd, permutation_test, relative_improvement

ANEW = "anew.json"
"""In a run's folder: its best network measured once more, against the main set."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run that is complete: its best figure, as the choice of its network has it.

    Attributes:
        run: Its name.
        experiment: Of the plan.
        seed: Of the run.
        metric: What was measured.
        value: The best over the snapshots, without that of random weights.
        kimg: Thousands of images shown by then.
        n_real: Real images behind the value; 0 where that is not known.
        n_fake: Synthetic ones.
        higher_is_better: Which way it is better.
        anew: The figure of its best network against the main set, on images that did not choose it; None where that was not measured.
    """

    run: str
    experiment: str
    seed: int
    metric: str
    value: float
    kimg: float
    n_real: int
    n_fake: int
    higher_is_better: bool
    anew: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An experiment over its runs.

    Attributes:
        experiment: Name.
        title: For people.
        data: The set.
        planned: Runs that were planned.
        n: Runs that are complete.
        mean: Of their best values; None without any.
        sd: With n - 1; None below two.
        best: Of the runs.
        anew_mean: Mean of what was measured anew; None where nothing was.
        anew_sd: Its SD.
        improvement: By which share of the first experiment's mean it is better; None for that one and on other sets.
        published: The paper's figure, where this is its experiment on a set cut by its recipe.
    """

    experiment: str
    title: str
    data: str
    planned: int
    n: int
    mean: float | None = None
    sd: float | None = None
    best: float | None = None
    anew_mean: float | None = None
    anew_sd: float | None = None
    improvement: float | None = None
    published: str = ""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A planned test on what there is.

    Attributes:
        a: Experiment.
        b: The other one.
        n_a: Runs behind it.
        n_b: Runs behind it.
        difference: mean(a) - mean(b).
        p: Two-sided, of the permutation test.
        adjusted: After Holm, over the family's tests that could be made.
        exact: Whether all relabelings were looked at.
        smallest_p: What it could reach.
        anew: Whether it compares what was measured anew.
        significant: Whether `adjusted` is at most the level; never before all runs of the plan are complete.
        as_planned: Whether all planned runs are behind it.
    """

    a: str
    b: str
    n_a: int
    n_b: int
    difference: float
    p: float
    adjusted: float
    exact: bool
    smallest_p: float
    anew: bool
    significant: bool
    as_planned: bool


def outcomes(plan: Plan, out: Path) -> tuple[list[Outcome], dict[str, str]]:
    """The complete runs of a plan, and the state of each other one.

    Raises:
        DataError: Runs were compared by different metrics, or on different numbers of synthetic images.
    """
    found, missing = [], {}
    for planned in plan.runs:
        folder = out / RUNS / planned.name
        state = standing(Run(name=planned.name, folder=folder, words=())).state
        outcome = _outcome(planned, folder) if state == "complete" else None
        if outcome:
            found.append(outcome)
        else:
            missing[planned.name] = state
    for what, kinds in (("metrics", {one.metric for one in found}), ("numbers of synthetic images", {one.n_fake for one in found})):
        if len(kinds) > 1:
            raise DataError(
                f"the runs have different {what}: {', '.join(map(str, sorted(kinds)))}",
                fix="a run folder of another design lies among them",
            )
    return found, missing


def _outcome(planned: PlannedRun, folder: Path) -> Outcome | None:
    try:
        best = json.loads((folder / runs.STATUS).read_text(encoding="utf-8"))["best"]
        value, kimg, metric = float(best["value"]), float(best["kimg"]), str(best["metric"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    row = next((row for row in runs.read_json_lines(folder / runs.EVALUATIONS) if row.get("kimg") == kimg), {})
    entry = row.get("metrics", {}).get(metric, {})
    return Outcome(
        run=planned.name,
        experiment=planned.experiment,
        seed=planned.seed,
        metric=metric,
        value=value,
        kimg=kimg,
        n_real=int(row.get("n_real", 0)),
        n_fake=int(row.get("n_fake", 0)),
        higher_is_better=bool(entry.get("higher_is_better")),
        anew=_anew(folder),
    )


def _anew(folder: Path) -> float | None:
    """The first figure of the file that `medgan ablate collect --measure` wrote."""
    try:
        measured = json.loads((folder / ANEW).read_text(encoding="utf-8"))["metrics"]
        return float(next(iter(measured.values()))["value"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def summaries(plan: Plan, found: Sequence[Outcome]) -> list[Summary]:
    """Each experiment's mean, SD (n - 1), best, and improvement on the first experiment of the main set."""
    values = _values(found)
    first = next((experiment.name for experiment in plan.experiments if experiment.data == MAIN), "")
    higher = any(one.higher_is_better for one in found)
    recipes = {data.name: data.recipe for data in plan.data}
    rows = []
    for experiment in plan.experiments:
        its = values.get(experiment.name, [])
        known: dict[str, Any] = {}
        if its:
            known = {"mean": sum(its) / len(its), "best": max(its) if higher else min(its)}
        if len(its) > 1:
            known["mean"], known["sd"] = mean_sd(its)
        if again := _values(found, anew=True).get(experiment.name, []):
            known["anew_mean"] = sum(again) / len(again)
            known["anew_sd"] = mean_sd(again)[1] if len(again) > 1 else None
        baseline = values.get(first, [])
        if its and baseline and experiment.name != first and experiment.data == MAIN and sum(baseline) > 0:
            share = relative_improvement(baseline=sum(baseline) / len(baseline), value=known["mean"], higher_is_better=higher)
            known["improvement"] = share
        rows.append(
            Summary(
                experiment=experiment.name,
                title=experiment.title,
                data=experiment.data,
                planned=experiment.repeats,
                n=len(its),
                published=_published(plan, experiment.name, recipes.get(experiment.data, ""), found[0].metric if found else plan.metric),
                **known,
            )
        )
    return rows


def _published(plan: Plan, experiment: str, recipe: str, measured: str) -> str:
    design, arm, metric = PUBLISHED_BY
    return PUBLISHED.get(recipe, "") if plan.design == design and measured == metric and experiment.startswith(arm) else ""


def comparisons(plan: Plan, found: Sequence[Outcome]) -> list[Tested]:
    """The planned tests that have enough runs, exact where all relabelings can be listed, corrected together after Holm."""
    return [
        row
        for anew in (False, True)
        for row in _family([test for test in plan.tests if test.anew is anew], _values(found, anew=anew), plan.alpha)
    ]


def _family(planned: Sequence[PlannedTest], values: Mapping[str, list[float]], alpha: float) -> list[Tested]:
    possible = [test for test in planned if len(values.get(test.a, [])) > 1 and len(values.get(test.b, [])) > 1]
    if not possible:
        return []
    made = [permutation_test(values[test.a], values[test.b]) for test in possible]
    # Tests that could not be made yet count as p = 1: the family is the planned one.
    adjusted = holm([*(one.p for one in made), *[1.0] * (len(planned) - len(possible))])
    rows = []
    for test, one, p in zip(possible, made, adjusted, strict=False):
        n_a, n_b = len(values[test.a]), len(values[test.b])
        whole = (n_a, n_b) == (test.n_a, test.n_b)
        rows.append(
            Tested(
                a=test.a,
                b=test.b,
                n_a=n_a,
                n_b=n_b,
                difference=one.statistic,
                p=one.p,
                adjusted=p,
                exact=one.exact,
                smallest_p=one.smallest_p,
                anew=test.anew,
                significant=whole and len(possible) == len(planned) and p <= alpha,
                as_planned=whole,
            )
        )
    return rows


def _values(found: Sequence[Outcome], *, anew: bool = False) -> Mapping[str, list[float]]:
    values: dict[str, list[float]] = {}
    for one in found:
        value = one.anew if anew else one.value
        if value is not None:
            values.setdefault(one.experiment, []).append(value)
    return values
