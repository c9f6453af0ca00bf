"""What `medgan readers score` writes: results.json, tables (CSV, LaTeX), text, figures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan import runs
from medgan.errors import DataError, InputError
from medgan.readers import analysis
from medgan.readers.analysis import ALL, RATES, ModelTest, Row, Summary
from medgan.readers.answers import Answer
from medgan.readers.design import Design
from medgan.readers.study import Study, Truth
from medgan.tables import csv_table, csv_text, latex_table

FID_NAMES = ("fid50k_full", "fid50k", "fid")
RECALL_NAMES = ("recall_inception", "recall")
LABELS = {"precision": "Precision", "recall": "Recall", "accuracy": "Accuracy", "fpr": "FPR", "fnr": "FNR"}


@dataclass(frozen=True)
class Beside:
    """What `medgan evaluate` measured of a model.

    Attributes:
        fid_name: Which FID; empty where none was measured.
        fid: Its value.
        recall: Share of real images within reach of synthetic ones: diversity, which readers do not see.
    """

    fid_name: str
    fid: float | None
    recall: float | None


def read_metrics(path: Path, name: str) -> Beside:
    """FID and recall from the metrics.json of a model.

    Raises:
        InputError: No such file.
        DataError: It is no metrics.json, or has neither.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        values = {metric: float(entry["value"]) for metric, entry in metrics.items() if isinstance(entry.get("value"), int | float)}
    except FileNotFoundError:
        raise InputError(f"--metrics {name} names no file that exists", fix="check the path") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"--metrics {name} is no metrics.json", fix="give the --out file of medgan evaluate") from None
    fid, recall = (next((metric for metric in wanted if metric in values), "") for wanted in (FID_NAMES, RECALL_NAMES))
    if not fid and not recall:
        raise DataError(f"--metrics {name} has neither FID nor recall", fix="medgan evaluate --metrics fid,recall_inception")
    return Beside(fid, values.get(fid), values.get(recall))


@dataclass(frozen=True)
class Results:
    """Everything that a study's answers say.

    Attributes:
        study: The study.
        models: Names of its synthetic sets.
        rows: As `analysis.rows`.
        summaries: As `analysis.summaries`.
        tests: As `analysis.model_tests`.
        fpr_fnr: As `analysis.fpr_fnr`.
        fid_fpr: As `analysis.fid_fpr`.
        ratings: Truth -> how many answers of each rating from 1 to 5, of complete readers.
        beside: Model -> what was measured of it.
        notes: What must be said with the figures.
    """

    study: Study
    models: list[str]
    rows: list[Row]
    summaries: list[Summary]
    tests: list[ModelTest]
    fpr_fnr: dict[str, Any]
    fid_fpr: dict[str, Any]
    ratings: dict[str, list[int]]
    beside: dict[str, Beside]
    notes: list[str]


def score(study: Study, key: Mapping[str, Truth], answers: Sequence[Answer], beside: Mapping[str, Beside]) -> Results:
    """All results of a study.

    Args:
        study: What was shown.
        key: What it is.
        answers: Of all readers.
        beside: Model -> what `medgan evaluate` measured of it.

    Raises:
        DataError: As `analysis.judgements`; or `beside` names no model of the study, or FIDs of two kinds.
    """
    models = analysis.models_of(key)
    if unknown := sorted(set(beside) - set(models)):
        raise DataError(
            f"--metrics names {', '.join(unknown)}, and the study's models are {', '.join(models)}", fix="--metrics NAME=metrics.json"
        )
    if len(kinds := sorted({one.fid_name for one in beside.values() if one.fid is not None})) > 1:
        raise DataError(f"the models' FIDs are of different kinds: {', '.join(kinds)}", fix="measure all with the same --metrics")
    judged = analysis.judgements(study, key, answers)
    table = analysis.rows(key, judged, study.design)
    found = analysis.summaries(key, table, judged, study.design)
    done = {row.reader for row in table if row.model == ALL and row.complete}
    ratings = {
        truth: [
            sum(one.answer.likert == rating and one.real is real and one.answer.reader in done for one in judged) for rating in range(1, 6)
        ]
        for truth, real in (("real", True), ("fake", False))
    }
    tests = analysis.model_tests(key, table, study.design)
    fid = {model: one.fid for model, one in beside.items() if one.fid is not None}
    result = Results(study, models, table, found, tests, analysis.fpr_fnr(table), analysis.fid_fpr(found, fid), ratings, dict(beside), [])
    result.notes.extend(_notes(result))
    return result


def _notes(result: Results) -> list[str]:
    """What readers of the figures must know."""
    notes = []
    if late := [row.reader for row in result.rows if row.model == ALL and not row.complete]:
        notes.append(f"Not finished, and in no mean or test of what they did not finish: {', '.join(late)}.")
    overall = next((one for one in result.summaries if one.model == ALL), None)
    if overall is None:
        notes.append("No reader has finished: there are no means and no tests.")
    elif overall.accuracy is not None and overall.equivalence is not None:
        chance = overall.accuracy.low <= 0.5 <= overall.accuracy.high
        notes.append(
            f"Mean accuracy {percent(overall.means['accuracy'][0])} %, 95 % interval {percent(overall.accuracy.low)} to {percent(overall.accuracy.high)} %: "
            + ("not told from chance, which is no proof of it; " if chance else "not chance; ")
            + f"shown to lie within ± {math.ceil(100 * overall.equivalence)} points of 50 % (two one-sided tests at 5 %)."
        )
    if result.tests and not any(test.significant for test in result.tests):
        # Holm multiplies the smallest p of a family by the number of its tests.
        pairs = len(result.tests) // len({test.rate for test in result.tests})
        least = min(min(test.smallest_p for test in result.tests) * pairs, 1.0)
        alpha = result.study.design.alpha
        notes.append(
            f"No difference between models is significant at {alpha:g} after Holm's correction"
            + (f": with so few readers p cannot fall below {least:.3g}, whatever they answer" if least > alpha else "")
            + "."
        )
    for name, found in (("FPR and FNR over readers", result.fpr_fnr), ("FID and FPR over models", result.fid_fpr)):
        if found["r"] is not None and min(found["p"], found["p_t"]) > 0.05:
            notes.append(
                f"The correlation of {name} is not significant at 5 %; {found['n']} points can reach p = {found['smallest_p']:.2g} at best."
            )
    notes.append(
        "What this test cannot show: a generator that repeats one perfect image, or leaves out whole kinds of patients, deceives every reader. Accuracy at the level "
        "of chance shows plausible images, not diverse ones, and not that images are right, safe or private. FID and recall of the same model stand beside it."
    )
    if without := [model for model in result.models if model not in result.beside or result.beside[model].recall is None]:
        notes.append(
            f"No recall is known of {', '.join(without)}: give --metrics NAME=metrics.json, measured with medgan evaluate --metrics fid,recall_inception."
        )
    return notes


def percent(share: float) -> int:
    """A share in whole percent, halves up, as the paper prints."""
    return math.floor(100 * share + 0.5)


def _cell(value: float | None) -> str:
    return "-" if value is None else str(percent(value))


def _mean(means: Mapping[str, tuple[float, float | None, int]], name: str, *, scale: float = 100) -> str:
    """Mean ± SD; whole percent of shares, two decimals otherwise."""
    if name not in means:
        return "-"
    mean, sd, _ = means[name]
    if scale == 100:
        return f"{percent(mean)}" + ("" if sd is None else f" ± {percent(sd)}")
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


def readers_table(result: Results, scope: str) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a table of readers as the paper has it, in whole percent, means below; Likert means where they were asked."""
    design = result.study.design
    names = [name for name in RATES if design.kind != "2afc" or name == "accuracy"]
    heads = ["Reader", *(LABELS[name] for name in names), *(["Likert real", "Likert synthetic"] if design.likert else [])]
    its = [row for row in result.rows if row.model == scope]
    cells = []
    for row in its:
        likert = ["-" if value is None else f"{value:.2f}" for value in (row.likert_real, row.likert_fake)] if design.likert else []
        cells.append([row.reader + ("" if row.complete else " (unfinished)"), *(_cell(getattr(row, name)) for name in names), *likert])
    for one in result.summaries:
        if one.model == scope:
            likert = [_mean(one.means, name, scale=1) for name in ("likert_real", "likert_fake")] if design.likert else []
            cells.append(["Mean ± SD", *(_mean(one.means, name) for name in names), *likert])
    return heads, cells


def models_table(result: Results) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a table of models: rates over readers, and FID and recall beside them."""
    names = ["accuracy"] if result.study.design.kind == "2afc" else ["accuracy", "fpr", "fnr"]
    kind = next((one.fid_name for one in result.beside.values() if one.fid is not None), "FID")
    heads = ["Model", "Readers", *(LABELS[name] for name in names), kind, "Recall (diversity)"]
    cells = []
    for one in result.summaries:
        if one.model == ALL and len(result.summaries) > 1:
            continue
        # The only model has no summary of its own: all images are its.
        name = result.models[0] if one.model == ALL else one.model
        beside = result.beside.get(name, Beside("", None, None))
        measured = ["-" if value is None else f"{value:.2f}" for value in (beside.fid, beside.recall)]
        cells.append([name, str(one.readers), *(_mean(one.means, rate) for rate in names), *measured])
    return heads, cells


def tests_table(result: Results) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the tests between models."""
    heads = ["Rate", "Models", "Means", "Readers", "p", "p (Holm)", "significant"]
    return heads, [
        [
            LABELS[test.rate],
            f"{test.a} against {test.b}",
            f"{percent(test.mean_a)}, {percent(test.mean_b)}",
            f"{test.readers}, {test.test}",
            f"{test.p:.4f}",
            f"{test.adjusted:.4f}",
            "yes" if test.significant else "no",
        ]
        for test in result.tests
    ]


def correlation_text(name: str, found: Mapping[str, Any]) -> str:
    """A correlation in one line."""
    if found["r"] is None:
        return f"{name}: no correlation ({found['reason']})"
    kind = "exact permutation" if found["exact"] else "permutation"
    return f"{name}: Pearson r = {found['r']:.3f}, p {_p(found['p_t'])} (t), p {_p(found['p'])} ({kind}), n = {found['n']}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def text(result: Results) -> str:
    """The results for people."""
    study = result.study
    lines = [
        f"{study.title}: design {study.design.name}, {len({row.reader for row in result.rows})} readers. Positive class: real. In percent.",
        "",
    ]
    for one in dict.fromkeys(row.model for row in result.rows):
        lines += ["All images" if one == ALL else f"Model {one}", *_columns(*readers_table(result, one))]
        summary = next((found for found in result.summaries if found.model == one), None)
        if summary:
            agreement = "-" if summary.kappa is None else f"{summary.kappa:.2f}"
            d_prime = _mean(summary.means, "d_prime", scale=1)
            lines.append(f"d' {d_prime}; agreement between readers (Fleiss' kappa) {agreement}; {_pooled(summary, study.design)}")
        lines.append("")
    if result.summaries:
        lines += ["Models", *_columns(*models_table(result)), ""]
    if result.tests:
        lines += [f"Permutation tests between models, two-sided, level {study.design.alpha:g}", *_columns(*tests_table(result)), ""]
    if study.design.kind != "2afc":
        lines += [
            correlation_text("FPR and FNR over readers", result.fpr_fnr),
            correlation_text("FID and FPR over models", result.fid_fpr),
            "",
        ]
    return "\n".join([*lines, *result.notes]) + "\n"


def _pooled(one: Summary, design: Design) -> str:
    counts = one.pooled
    if design.kind == "2afc":
        return f"pooled {counts.tp + counts.tn} of {counts.tp + counts.fp + counts.tn + counts.fn} right"
    return f"pooled FPR {counts.fp}/{counts.fp + counts.tn}, FNR {counts.fn}/{counts.tp + counts.fn}"


def _columns(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *cells)
    ]


def as_json(result: Results) -> dict[str, Any]:
    """The results as JSON values; what could not be computed is null."""
    return {
        "study": result.study.id,
        "title": result.study.title,
        "design": dataclasses.asdict(result.study.design),
        "positive_class": "real",
        "readers": [dataclasses.asdict(row) for row in result.rows],
        "summaries": [_summary(one) for one in result.summaries],
        "tests": [dataclasses.asdict(test) for test in result.tests],
        "fpr_fnr": result.fpr_fnr,
        "fid_fpr": result.fid_fpr,
        "ratings": result.ratings,
        "models": {model: dataclasses.asdict(one) for model, one in result.beside.items()},
        "notes": result.notes,
    }


def _summary(one: Summary) -> dict[str, Any]:
    means = {name: {"mean": mean, "sd": sd, "readers": count} for name, (mean, sd, count) in one.means.items()}
    return {**dataclasses.asdict(one), "means": means}


def latex(result: Results) -> str:
    """The tables for a paper."""
    tables = []
    for scope in dict.fromkeys(row.model for row in result.rows):
        of = "" if scope == ALL else f" Images of {scope}."
        caption = f"Visual Turing test, percent; positive class: real; SD with n - 1.{of}"
        tables.append(latex_table(*readers_table(result, scope), caption=caption, label=f"tab:readers-{scope}"))
    if result.summaries:
        caption = (
            "Readers' rates, percent, mean ± SD, with FID and recall of the same model: readers do not see whether images are diverse."
        )
        tables.append(latex_table(*models_table(result), caption=caption, label="tab:readers-models"))
    if result.tests:
        caption = f"Permutation tests between models over readers, two-sided, after Holm; level {result.study.design.alpha:g}."
        tables.append(latex_table(*tests_table(result), caption=caption, label="tab:readers-tests"))
    return "\n".join(tables)


def write(result: Results, out: Path) -> list[str]:
    """Write results.json, readers.csv, summaries.csv, tests.csv, tables.tex, results.txt and the figures; their names."""
    from medgan.readers.figures import figures

    means = [
        {"model": one.model, "rate": name, "mean": mean, "sd": "" if sd is None else sd, "readers": count}
        for one in result.summaries
        for name, (mean, sd, count) in one.means.items()
    ]
    texts = {
        "readers.csv": csv_table(result.rows, Row),
        "summaries.csv": csv_text(("model", "rate", "mean", "sd", "readers"), means),
        "tests.csv": csv_table(result.tests, ModelTest),
        "tables.tex": latex(result),
        "results.txt": text(result),
    }
    pictures = figures(result)
    for name, content in texts.items():
        runs.write_text(out / name, content)
    for name, picture in pictures.items():
        with runs.atomic(out / name) as temporary:
            temporary.write_bytes(picture)
    runs.write_json(out / "results.json", as_json(result))
    return ["results.json", *texts, *pictures]
