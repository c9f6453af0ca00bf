"""The reporting pack: every item once, answers from the run, open items marked, nothing of the run as markup."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest

from medgan.reports.facts import facts
from medgan.reports.pack import OPEN, documents
from medgan.reports.results import read_results
from tests.reports.folder import make_run, write
from tests.reports.test_companions import with_companions

NAMES = ("CLAIM-2024.md", "MI-CLAIM-GEN.md", "MODEL_CARD.md", "DATASHEET.md")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def rows(text: str) -> dict[str, str]:
    """Item number -> answer; a cell ends at a bar without a backslash."""
    found = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if re.match(r"\| \w+ \|", line)]
    assert all(len(cells) == 5 for cells in found)
    return {cells[1].strip(): cells[3].strip() for cells in found}


def test_claim_has_its_44_items_in_order(run):
    found = documents(read_results(run))
    assert tuple(found) == NAMES
    assert list(rows(found["CLAIM-2024.md"])) == [str(n) for n in range(1, 45)]
    assert len(rows(found["MODEL_CARD.md"])) == 18


def test_answers_are_the_runs(run):
    claim = rows(documents(read_results(run))["CLAIM-2024.md"])
    assert claim["35"] == "92 images, 2 patients, 2 scans (series). 40 x slice without the label; 3 x duplicate."
    assert "L 50 / W 350: −125 HU becomes black, 225 HU white" in claim["9"]
    assert claim["19"] == "5 images held out of training, by patient."
    assert claim["24"] == "Random, seed 7."
    assert claim["26"] == "Its fid50k\\_full, 212.47, is the lowest of 4 measured during training."
    assert "208.55" in claim["32"]
    assert "2 patients cannot stand for a population" in claim["40"]
    assert claim["16"] == f"{OPEN} to be written"


def test_the_head_counts_what_is_open(run):
    for text in documents(read_results(run)).values():
        answers = rows(text)
        still = sum(OPEN in answer for answer in answers.values())
        assert f"{len(answers) - still} of {len(answers)} items; {still} are yours, marked {OPEN}." in text


def test_every_topic_of_the_lists_is_one_the_facts_know(run):
    lists = json.loads(files("medgan.reports").joinpath("checklists.json").read_text(encoding="utf-8"))
    asked = {topic for each in lists for section in each["sections"] for item in section["items"] for topic in item.get("topics", ())}
    write(run / "metrics.json", with_companions())
    assert asked <= set(facts(read_results(run)))


def test_a_run_without_metrics_leaves_them_open(run):
    (run / "metrics.json").unlink()
    claim = rows(documents(read_results(run))["CLAIM-2024.md"])
    assert claim["28"] == claim["32"] == f"{OPEN} to be written"
    assert "Their distance to the real images was not measured." in claim["40"]


@pytest.mark.parametrize("only", ["config.json", "stats.jsonl", "metrics.json", "dataset", "synthetic", "bundle"])
def test_a_folder_with_one_part_has_a_pack(tmp_path, run, only):
    alone = tmp_path / "alone"
    alone.mkdir()
    (run / only).rename(alone / only)
    assert tuple(documents(read_results(alone))) == NAMES


def test_words_of_the_run_are_no_markup(run):
    write(run / "dataset/recipe.json", {"name": "a|b", "title": "<img src=x>\n| **bold** | [x](y)", "mask_name": "TODO"})
    text = documents(read_results(run))["CLAIM-2024.md"]
    assert "<img" not in text
    assert r"&lt;img src=x&gt; \| \*\*bold\*\* \| \[x\](y) (a\|b)" in rows(text)["9"]
    assert OPEN not in rows(text)["10"]
    assert list(rows(text)) == [str(n) for n in range(1, 45)]
