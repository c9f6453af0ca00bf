"""Mean, SD, improvement and tests of hand-made run folders, worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from medgan import runs
from medgan.errors import DataError
from medgan.experiments.ablation import Design, Experiment, arms
from medgan.experiments.outcomes import ANEW, Summary, comparisons, outcomes, summaries
from medgan.experiments.plan import RUNS, Plan, PlannedData, PlannedTest, plan_of
from medgan.tables import csv_table, figure, latex_table, latex_text


def made(repeats: int = 5, *, name: str = "d", recipe: str = "", arm: str = "c") -> Plan:
    names = ("a", "b", arm)
    design = Design(
        name=name,
        experiments=tuple(Experiment(name=one, title=one.upper()) for one in names),
        tests=(("a", "b"), ("a", arm), ("b", arm)),
        repeats=repeats,
    )
    data = PlannedData(name="data", identity="0" * 64, images=10, resolution=32, recipe=recipe)
    chosen = arms(design, extra=False, further=())
    return plan_of(design, chosen, metric="fid", data=[data], settings={one: {} for one in names})


def fill(out: Path, values: dict[str, list[float]], *, metric: str = "fid", n_fake: int = 50, higher: bool = False) -> None:
    for experiment, its in values.items():
        for repeat, value in enumerate(its, start=1):
            folder = out / RUNS / f"{experiment}-{repeat}"
            runs.write_json(
                folder / runs.STATUS, {"status": "complete", "kimg": "2", "best": {"kimg": 1.0, "metric": metric, "value": value}}
            )
            # Random weights come first and would be the best.
            for kimg, seen in ((0.0, value / 10), (1.0, value), (2.0, value + 1)):
                entry = {metric: {"value": seen, "higher_is_better": higher}}
                runs.append_json(folder / runs.EVALUATIONS, {"kimg": kimg, "metrics": entry, "n_real": 10, "n_fake": n_fake})


def test_mean_sd_and_improvement(tmp_path):
    fill(tmp_path, {"a": [10, 11, 12, 13, 14], "b": [5, 6, 7, 8, 9], "c": [12, 12, 12, 12, 18]})
    found, missing = outcomes(made(), tmp_path)
    assert missing == {}
    assert {(one.n_real, one.n_fake, one.kimg) for one in found} == {(10, 50, 1.0)}
    a, b, c = summaries(made(), found)
    assert (a.mean, a.best, a.improvement, a.n) == (12, 10, None, 5)
    assert a.sd == pytest.approx(2.5**0.5, abs=1e-12)
    assert (b.mean, b.improvement) == (7, pytest.approx(5 / 12))
    assert c.improvement == pytest.approx(-1.2 / 12)


def test_planned_tests_after_holm(tmp_path):
    """a and b do not overlap: 2 of 252; so b and c; of the sums of a and c, by counting, 56 of 252 are as low: twice that."""
    fill(tmp_path, {"a": [10, 11, 12, 13, 14], "b": [5, 6, 7, 8, 9], "c": [12, 12, 12, 12, 18]})
    found, _ = outcomes(made(), tmp_path)
    rows = {(row.a, row.b): row for row in comparisons(made(), found)}
    assert [rows[pair].p for pair in (("a", "b"), ("b", "c"))] == [2 / 252, 2 / 252]
    assert [rows[pair].adjusted for pair in (("a", "b"), ("b", "c"))] == pytest.approx([3 * 2 / 252, 3 * 2 / 252])
    low = count_as_low([10, 11, 12, 13, 14], [12, 12, 12, 12, 18])
    assert rows[("a", "c")].p == pytest.approx(2 * low / 252)
    assert rows[("a", "c")].adjusted == rows[("a", "c")].p
    assert [row.significant for row in rows.values()] == [True, False, True]
    assert all(row.as_planned and row.exact for row in rows.values())
    assert rows[("a", "b")].difference == 5


def count_as_low(a: list[float], b: list[float]) -> int:
    from itertools import combinations

    return sum(sum(some) <= sum(a) for some in combinations([*a, *b], len(a)))


def test_a_look_before_all_runs_are_complete_is_never_significant(tmp_path):
    fill(tmp_path, {"a": [10, 11, 12, 13, 14], "b": [5, 6, 7, 8, 9]})
    found, missing = outcomes(made(), tmp_path)
    assert missing == {f"c-{repeat}": "waiting" for repeat in range(1, 6)}
    (row,) = comparisons(made(), found)
    assert (row.as_planned, row.significant, row.p) == (True, False, 2 / 252)
    # The family is the planned one: three tests, also while two of them wait.
    assert row.adjusted == pytest.approx(6 / 252)
    assert [one.mean for one in summaries(made(), found)] == [12, 7, None]


def test_a_metric_that_is_better_high_improves_upwards(tmp_path):
    fill(tmp_path, {"a": [0.2] * 5, "b": [0.3] * 5}, metric="recall", higher=True)
    found, _ = outcomes(made(), tmp_path)
    b = summaries(made(), found)[1]
    assert b.improvement == pytest.approx(0.5)
    assert b.sd == 0


def test_networks_measured_anew_are_a_family_of_their_own(tmp_path):
    """Best figures say that b is far better; measured against one set it is worse, 2 of 20 relabelings at best."""
    fill(tmp_path, {"a": [10, 11, 12], "b": [1, 2, 3]})
    plan = replace(
        made(3),
        tests=tuple(PlannedTest(a="a", b="b", n_a=3, n_b=3, smallest_p=0.1, smallest_adjusted=0.1, anew=anew) for anew in (False, True)),
    )
    for name, value in (("a-1", 10.5), ("a-2", 11.5), ("a-3", 12.5), ("b-1", 20), ("b-2", 21), ("b-3", 22)):
        runs.write_json(tmp_path / RUNS / name / ANEW, {"metrics": {"fid": {"value": value}}})
    found, _ = outcomes(plan, tmp_path)
    best, anew = comparisons(plan, found)
    assert (best.difference, best.p, best.adjusted) == (9, 0.1, 0.1)
    assert (anew.difference, anew.p, anew.adjusted, anew.anew) == (-9.5, 0.1, 0.1, True)
    a = summaries(plan, found)[0]
    assert (a.mean, a.anew_mean, a.anew_sd) == (11, 11.5, 1)


def test_one_run_has_no_sd_and_no_test(tmp_path):
    fill(tmp_path, {"a": [10.0], "b": [5.0], "c": [1.0]})
    plan = made(1)
    found, _ = outcomes(plan, tmp_path)
    assert [(one.mean, one.sd) for one in summaries(plan, found)] == [(10, None), (5, None), (1, None)]
    assert comparisons(plan, found) == []


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    fill(tmp_path, {"a": [1, 2]})
    fill(tmp_path, {"b": [1, 2]}, n_fake=51)
    with pytest.raises(DataError, match="numbers of synthetic images: 50, 51"):
        outcomes(made(2), tmp_path)


@pytest.mark.parametrize(
    ("name", "recipe", "metric", "shown"),
    [
        ("paper-2210.03786", "ct-liver", "fid50k_full", "5.22 ± 0.17"),
        ("paper-2210.03786", "acdc", "fid50k_full", "21.17"),
        ("paper-2210.03786", "mr", "fid50k_full", ""),
        ("paper-2210.03786", "ct-liver", "fid", ""),
        ("mine", "ct-liver", "fid50k_full", ""),
    ],
)
def test_the_papers_figure_stands_beside_its_own_experiment_set_and_metric_only(tmp_path, name, recipe, metric, shown):
    plan = made(2, name=name, recipe=recipe, arm="4-both")
    fill(tmp_path, {"a": [9, 8], "b": [8, 7], "4-both": [6, 5]}, metric=metric)
    rows = summaries(plan, outcomes(plan, tmp_path)[0])
    assert [row.published for row in rows] == ["", "", shown]


def test_tables_for_latex_and_machines():
    text = latex_table(["set_1", "5 %"], [["A & B", "5.22 ± 0.17"]], caption="50 % of #1", label="tab:x")
    assert r"set\_1 & 5 \% \\" in text
    assert r"A \& B & 5.22 $\pm$ 0.17 \\" in text
    assert r"\caption{50 \% of \#1}" in text
    assert latex_text("a\\b") == r"a\textbackslash{}b"
    assert [figure(x) for x in (5.224, 123.456, 0.012345)] == ["5.22", "123.46", "0.01235"]
    rows = list(csv.DictReader(io.StringIO(csv_table([Summary(experiment="a", title="A, b", data="data", planned=5, n=0)], Summary))))
    assert rows == [
        {
            "experiment": "a",
            "title": "A, b",
            "data": "data",
            "planned": "5",
            "n": "0",
            "mean": "",
            "sd": "",
            "best": "",
            "anew_mean": "",
            "anew_sd": "",
            "improvement": "",
            "published": "",
        }
    ]


def test_a_status_that_is_torn_is_no_outcome(tmp_path):
    fill(tmp_path, {"a": [1.0, 2.0]})
    (tmp_path / RUNS / "a-1" / runs.STATUS).write_text(json.dumps({"status": "complete", "best": {"value": None}}))
    found, missing = outcomes(made(2), tmp_path)
    assert [one.run for one in found] == ["a-2"]
    assert missing["a-1"] == "complete"
