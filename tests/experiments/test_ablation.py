"""Designs and plans: what runs, with which seeds, and what the tests could show."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medgan.config import to_json
from medgan.errors import ConfigError
from medgan.experiments.ablation import DESIGNS, Design, Experiment, arms, read_design
from medgan.experiments.plan import Plan, PlannedData, differences, plan_of
from medgan.training.config import TrainConfig, preset

PAPER = DESIGNS["paper-2210.03786"]
NAMES = list(to_json(TrainConfig()))
SET = PlannedData(name="data", identity="0" * 64, images=10, resolution=32, recipe="ct-liver")


def planned(design: Design, *, extra: bool = False, further: tuple[str, ...] = ()) -> Plan:
    chosen = arms(design, extra=extra, further=further)
    return plan_of(design, chosen, metric="fid50k_full", data=[SET], settings={one.name: {"seed": 9, "kimg": 1} for one, _, _ in chosen})


def test_the_papers_design_is_four_experiments_of_five_runs_and_all_six_pairs():
    plan = planned(PAPER)
    assert [(one.name, one.repeats) for one in plan.experiments] == [
        ("1-baseline", 5),
        ("2-pretrained", 5),
        ("3-augmented", 5),
        ("4-both", 5),
    ]
    assert len({frozenset((test.a, test.b)) for test in plan.tests}) == len(plan.tests) == 6
    assert sorted(run.seed for run in plan.runs) == list(range(20))
    assert len({run.name for run in plan.runs}) == 20
    # What differs is the flips, ADA and where the weights come from; all else is the preset's.
    base = preset("paper-2210.03786", size=512)
    made = {one.name: replace(base, **one.settings) for one in PAPER.experiments}
    assert [(made[name].mirror, made[name].augment) for name in ("1-baseline", "2-pretrained", "3-augmented", "4-both")] == [
        (False, "none"),
        (False, "none"),
        (True, "ada"),
        (True, "ada"),
    ]
    assert [one.name for one in PAPER.experiments if one.pretrained] == ["2-pretrained", "4-both", "4-both-on"]
    assert all(set(one.settings) == {"mirror", "augment"} for one in PAPER.experiments)


def test_what_the_tests_can_show_at_best_is_said_before_anything_runs():
    """2 of 252 relabelings of five and five; times six tests 0.048, just below 5 %."""
    test = planned(PAPER).tests[0]
    assert (test.smallest_p, test.smallest_adjusted) == (2 / 252, 12 / 252)
    assert "too few" not in planned(PAPER).notes[0]
    few = planned(replace(PAPER, repeats=3))
    assert few.tests[0].smallest_p == 2 / 20
    assert few.notes[0].startswith("too few repeats for any significance: the smallest p of 3 against 3 runs is 0.1")
    assert few.notes[0].endswith("--repeats 5 could show something")


def test_an_enlarged_set_adds_runs_and_a_family_of_tests_and_further_sets_runs_alone():
    plan = planned(PAPER, extra=True, further=("acdc", "chest"))
    assert [(one.name, one.data, one.repeats) for one in plan.experiments[4:]] == [
        ("1-enlarged", "extra", 5),
        ("4-both-on-acdc", "acdc", 1),
        ("4-both-on-chest", "chest", 1),
    ]
    assert plan.runs[:20] == planned(PAPER).runs
    # The enlarged set is a question of its own: seven tests in one family could show nothing with five repeats (7 x 2/252 = 0.056).
    assert plan.tests[:6] == planned(PAPER).tests
    (more,) = plan.tests[6:]
    assert (more.a, more.b, more.anew, more.smallest_adjusted) == ("1-baseline", "1-enlarged", True, 2 / 252)
    assert "collect --measure" in plan.notes[-1]


def test_a_plan_comes_back_from_its_file_and_lacks_the_seed_of_the_settings():
    plan = planned(PAPER)
    assert Plan.from_json(json.loads(json.dumps({**plan.to_json(), "written": "today"}))) == plan
    assert plan.experiments[0].settings == {"kimg": 1}


def test_all_unknown_options_of_a_design_are_listed_at_once(tmp_path):
    file = tmp_path / "design.json"
    arm = {"name": "a", "setings": 1, "settings": {"gama": 1, "gamma": 2, "seed": 3}}
    file.write_text(json.dumps({"experiments": [arm], "repeat": 5, "settings": {"batches": 4}}))
    with pytest.raises(ConfigError) as caught:
        read_design(str(file), settings=NAMES)
    listed = "repeat, settings.batches, experiments[0].setings, experiments[0].settings.gama, experiments[0].settings.seed"
    assert caught.value.message == f"--design has unknown options: {listed}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a readable JSON"),
        ("[]", "no list of experiments"),
        ('{"experiments": []}', "no experiments"),
        ('{"experiments": [{"name": "a"}, {"name": "a"}]}', "two experiments of one name: a"),
        ('{"experiments": [{"name": "a/b"}]}', "no words: a/b"),
        ('{"experiments": [{"name": "a"}], "tests": [["a", "b"]]}', "no experiment on the main set: b"),
        ('{"experiments": [{"name": "a"}], "tests": [["a", "a"]]}', "against itself"),
        ('{"experiments": [{"name": "a"}], "tests": [["a"]]}', "not of its type"),
        ('{"experiments": [{"name": "a"}], "repeats": "many"}', "not of its type"),
        ('{"experiments": [{"name": "a"}], "repeats": 0}', "--repeats 0"),
    ],
)
def test_designs_that_cannot_be(tmp_path, content, words):
    (tmp_path / "design.json").write_text(content)
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        read_design(str(tmp_path / "design.json"), settings=NAMES)


def test_sets_that_no_experiment_uses_are_refused():
    design = Design(name="d", experiments=(Experiment(name="a"),))
    for sets, words in (({"extra": True, "further": ()}, "--extra-data"), ({"extra": False, "further": ("b",)}, "--also")):
        with pytest.raises(ConfigError, match=words):
            arms(design, **sets)
    with pytest.raises(ConfigError, match="words of their own"):
        arms(PAPER, extra=False, further=("a b",))


def test_differences_of_plans_name_the_field_and_both_values():
    one, other = planned(PAPER).to_json(), planned(replace(PAPER, repeats=3, alpha=0.01)).to_json()
    assert differences(one, one) == []
    found = differences(one, other)
    assert "alpha 0.05 -> 0.01" in found
    assert "experiments[1-baseline].repeats 5 -> 3" in found
    assert "20 runs -> 12" in found
