"""What `medgan ablate collect` writes: tables, tests and figures of an ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan import runs
from medgan.errors import DataError, InputError
from medgan.experiments.ablation import EXTRA, MAIN, PUBLISHED_BY
from medgan.experiments.outcomes import ANEW, Outcome, Summary, Tested, comparisons, outcomes, summaries
from medgan.experiments.plan import RUNS, Plan
from medgan.tables import csv_table, figure, latex_table

if TYPE_CHECKING:
    from numpy import ndarray

    from medgan.data.dataset import Dataset

RESULTS = "results"

# Below it the covariance of Inception's 2048 features is rank-deficient, and FID is mostly bias.
FEW_IMAGES = 2048


def measure(plan: Plan, out: Path, *, data: Path, weights: Path | None) -> None:
    """Measure the best network of each run that is to be compared so anew against the main set, into the run's folder; what is there stays.

    Args:
        plan: Of the runs.
        out: Folder of the ablation.
        data: The main set.
        weights: Folder with pretrained files, or None.

    Raises:
        DataError: `data` is not the main set.
    """
    from medgan.commands.evaluate import evaluate
    from medgan.metrics.config import EvaluateConfig

    _check_set(plan, MAIN, data)
    wanted = {name for test in plan.tests if test.anew for name in (test.a, test.b)}
    settings = {one.name: one.settings for one in plan.experiments}
    for one in outcomes(plan, out)[0]:
        folder = out / RUNS / one.run
        if one.experiment in wanted and not (folder / ANEW).exists():
            # Its images start at seed 0, those that chose the network far beyond.
            config = EvaluateConfig(metrics=(plan.metric,), n_fake=settings[one.experiment]["metric_images"])
            evaluate(config, real=data, fake=None, bundle=folder / runs.BUNDLE, out=folder / ANEW, weights=weights)


def collect(plan: Plan, out: Path, *, sets: Mapping[str, Path], images: int) -> dict[str, Any]:
    """Write OUT/results anew and return its results.json.

    Args:
        plan: Of the runs.
        out: Folder of the ablation.
        sets: Name -> dataset whose real images go above the synthetic ones.
        images: In a row; 0 for no rows.

    Raises:
        DataError: No run is complete, or a set is not the one that the runs were trained on.
    """
    found, missing = outcomes(plan, out)
    if not found:
        raise DataError("no run is complete, so there is nothing to collect", fix="medgan ablate status --out OUT")
    real = {name: _real(plan, name, path, images) for name, path in sets.items()}
    folder = out / RESULTS
    runs.check_writable(folder, "--out")
    rows, tested = summaries(plan, found), comparisons(plan, found)
    notes = _notes(plan, found, missing, rows)
    runs.write_text(folder / "experiments.csv", csv_table(rows, Summary))
    runs.write_text(folder / "runs.csv", csv_table(found, Outcome))
    runs.write_text(folder / "tests.csv", csv_table(tested, Tested))
    runs.write_text(folder / "tables.tex", _latex(plan, found[0].metric, rows, tested))
    pictures = [*_losses(plan, found, out, folder), *_rows(plan, found, out, folder, real, images)]
    result = {
        "design": plan.design,
        "metric": found[0].metric,
        "alpha": plan.alpha,
        "complete": len(found),
        "planned": len(plan.runs),
        "missing": missing,
        "experiments": [asdict(row) for row in rows],
        "tests": [asdict(test) for test in tested],
        "runs": [asdict(one) for one in found],
        "figures": pictures,
        "notes": notes,
    }
    runs.write_json(folder / "results.json", result)
    for note in notes:
        click.echo(f"NOTE {note}", err=True)
    return result


def _notes(plan: Plan, found: Sequence[Outcome], missing: Mapping[str, str], rows: Sequence[Summary]) -> list[str]:
    notes = []
    if missing:
        states = ", ".join(f"{name} {state}" for name, state in missing.items())
        notes.append(
            f"{len(missing)} of {len(plan.runs)} planned runs are not complete ({states}): tests before that are looks ahead, and none counts as significant"
        )
    counts = sorted({(one.n_real, one.n_fake) for one in found})
    notes.append(
        f"{found[0].metric} rests on " + "; ".join(f"{real or '?'} real and {fake or '?'} synthetic images" for real, fake in counts)
    )
    if "fid" in found[0].metric and min(min(pair) for pair in counts) < FEW_IMAGES:
        notes.append(f"fewer than {FEW_IMAGES} images: FID is mostly bias here; compare it only at equal counts")
    notes.append(
        "each value is the best of a run's snapshots, chosen by the same measurement, as in the paper: a little too good as an estimate"
    )
    notes += [note for note in plan.notes if EXTRA in {data.name for data in plan.data} and "enlarged" in note]
    if any(row.published for row in rows):
        notes.append(
            f"published: {PUBLISHED_BY[0]} on its own images; its figures and these are of different sets unless yours is the same"
        )
    return notes


def _latex(plan: Plan, metric: str, rows: Sequence[Summary], tested: Sequence[Tested]) -> str:
    published, anew = any(row.published for row in rows), any(row.anew_mean is not None for row in rows)
    cells = [
        [
            row.title + (f" ({row.data})" if row.data != MAIN else ""),
            f"{row.n} of {row.planned}" if row.n < row.planned else str(row.n),
            _mean_sd(row.mean, row.sd),
            "" if row.best is None else figure(row.best),
            "" if row.improvement is None else f"{100 * row.improvement:.0f} %",
            *([_mean_sd(row.anew_mean, row.anew_sd)] if anew else []),
            *([row.published] if published else []),
        ]
        for row in rows
    ]
    heads = ["experiment", "runs", f"{metric}, mean ± SD", "best run", "improvement"]
    heads += ["measured anew"] * anew + ["published"] * published
    titles = {row.experiment: row.title for row in rows}
    tables = [latex_table(heads, cells, caption=f"{metric} of each run's best network; SD with n - 1.", label="tab:ablation")]
    tables += [_tests_table(plan, titles, family) for anew in (False, True) if (family := [one for one in tested if one.anew is anew])]
    return "\n".join(tables)


def _tests_table(plan: Plan, titles: Mapping[str, str], family: Sequence[Tested]) -> str:
    lines = [
        [
            f"{titles[test.a]} against {titles[test.b]}",
            f"{test.n_a}, {test.n_b}",
            figure(test.difference),
            f"{test.p:.4f}",
            f"{test.adjusted:.4f}",
            "yes" if test.significant else "no",
        ]
        for test in family
    ]
    anew = family[0].anew
    caption = "Exact permutation tests" if all(test.exact for test in family) else "Permutation tests"
    caption += f" of the difference of means {'of networks measured anew against the main set' if anew else 'of best figures'}, two-sided, "
    caption += f"after Holm for {sum(test.anew is anew for test in plan.tests)} planned; level {plan.alpha:g}."
    heads = ["experiments", "runs", "difference", "p", "p (Holm)", "significant"]
    return latex_table(heads, lines, caption=caption, label="tab:ablation-anew" if anew else "tab:ablation-tests")


def _mean_sd(mean: float | None, sd: float | None) -> str:
    return "" if mean is None else figure(mean) + (f" ± {figure(sd)}" if sd is not None else "")


def _losses(plan: Plan, found: Sequence[Outcome], out: Path, folder: Path) -> list[str]:
    from medgan.experiments.figures import losses

    traces = {
        experiment.title if experiment.data == "data" else f"{experiment.title} ({experiment.data})": [
            runs.read_json_lines(out / RUNS / one.run / runs.STATS) for one in found if one.experiment == experiment.name
        ]
        for experiment in plan.experiments
    }
    picture = losses({title: its for title, its in traces.items() if its})
    return _write(folder / "losses.png", picture) if picture else []


def _rows(plan: Plan, found: Sequence[Outcome], out: Path, folder: Path, real: Mapping[str, ndarray], images: int) -> list[str]:
    """A picture per set that networks were trained on: real images where they are wanted, then each experiment's best network."""
    from medgan import machine
    from medgan.experiments.figures import image_rows
    from medgan.networks.bundle import read_bundle
    from medgan.sampling.formats import marks
    from medgan.sampling.generate import sample

    pictures: list[str] = []
    device = machine.device()
    for data in plan.data if images else ():
        rows, models = [], []
        for experiment in (one for one in plan.experiments if one.data == data.name):
            its = [one for one in found if one.experiment == experiment.name]
            if not its:
                continue
            best = min(its, key=lambda one: -one.value if one.higher_is_better else one.value)
            G, metadata = read_bundle(out / RUNS / best.run / runs.BUNDLE)
            rows.append((experiment.title, sample(G.to(device), range(images), device=device)))
            models.append(metadata["medgan"]["model_sha256"])
        if rows:
            rows = ([("Real", real[data.name])] if data.name in real else []) + rows
            said = marks(" ".join(models), seeds=f"0-{images - 1}", psi="1")
            pictures += _write(folder / f"images-{data.name}.png", image_rows(rows, said=said))
    return pictures


def _real(plan: Plan, name: str, path: Path, images: int) -> ndarray:
    """Images of a set, spread evenly over it."""
    import numpy as np

    data = _check_set(plan, name, path)
    return data.images(np.unique(np.linspace(0, len(data) - 1, max(images, 1)).round().astype(int)))


def _check_set(plan: Plan, name: str, path: Path) -> Dataset:
    """The set called `name`, proved to be the one of the plan."""
    from medgan.data.dataset import open_dataset

    if not path.exists():
        raise InputError(f"the dataset {name} does not exist")
    data = open_dataset(path)
    planned = {one.name: one for one in plan.data}.get(name)
    if planned is None or data.identity != planned.identity:
        raise DataError(f"the dataset {name} is not the one that the runs were trained on", fix="the same file as of `medgan ablate run`")
    return data


def _write(path: Path, picture: bytes) -> list[str]:
    runs.write_bytes(path, picture)
    return [path.name]
