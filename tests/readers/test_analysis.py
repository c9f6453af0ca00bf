import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from medgan.errors import DataError
from medgan.readers import analysis
from medgan.readers.answers import Answer
from medgan.readers.design import DESIGNS, Design
from medgan.readers.study import read_key
from tests.readers.studies import answers_of, study

PUBLISHED = json.loads((Path(__file__).parents[1] / "reference" / "turing_tables.json").read_text())
PAIRS = Design(name="pairs", kind="2afc", real=20, fake=20)


@pytest.fixture(scope="module")
def clinicians(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "s"
    return study(folder, DESIGNS["clinician"]), read_key(folder)


def judged(made, key, counts):
    return analysis.judgements(made, key, answers_of(made, key, counts))


# Golden: arXiv 2210.03786, shared/golden/turing_tables.json.


def test_the_clinicians_counts_give_the_published_rows_and_signal_detection(clinicians, golden):
    made, key = clinicians
    found = analysis.rows(
        key, judged(made, key, {name: (row["tp"], row["fp"]) for name, row in PUBLISHED["clinicians"].items()}), made.design
    )
    assert [row.reader for row in found] == [f"R{n}" for n in range(1, 8)]
    for row in found:
        published = PUBLISHED["clinicians"][row.reader]["published"]
        assert {rate: int(100 * getattr(row, rate) + 0.5) for rate in analysis.RATES} == published
    # d' and c after the log-linear rule, from the developers' reference.
    d_primes = [1.8029, 0.9011, 0.4697, 1.2667, 1.3764, 0.4485, 0.3547]
    assert [round(row.d_prime, 4) for row in found] == d_primes
    assert [round(row.criterion, 4) for row in found] == [-0.1477, 0.5986, -0.586, 0.3341, -1.2013, -0.9143, 0.2265]
    assert [row.p_chance for row in found[:2]] == pytest.approx([6.147806615047975e-11, 0.0035176417229701587])


def test_the_published_correlation_of_error_rates(clinicians):
    made, key = clinicians
    table = analysis.rows(
        key, judged(made, key, {name: (row["tp"], row["fp"]) for name, row in PUBLISHED["clinicians"].items()}), made.design
    )
    found = analysis.fpr_fnr(table)
    assert (round(found["r"], 3), round(found["p_t"], 3), found["n"]) == (-0.708, 0.075, 7)


def test_the_published_correlation_of_fid_and_false_positive_rate(tmp_path):
    """Five readers of 20 synthetic images of each of four models: 29, 34, 49 and 55 of 100 taken for real."""
    models = ("none", "ada", "apa", "diffaug")
    made = study(tmp_path / "s", DESIGNS["multi-model"], models)
    key = read_key(tmp_path / "s")
    taken = dict(zip(models, ((5, 6, 6, 6, 6), (6, 7, 7, 7, 7), (9, 10, 10, 10, 10), (11, 11, 11, 11, 11)), strict=True))
    answers = [
        one
        for model in models
        for one in answers_of(made, key, {f"R{n}": (15, count) for n, count in enumerate(taken[model])}, model=model)
    ]
    judged_ = analysis.judgements(made, key, answers)
    table = analysis.rows(key, judged_, made.design)
    found = analysis.summaries(key, table, judged_, made.design)
    means = {one.model: one.means["fpr"][0] for one in found}
    assert [round(100 * means[model]) for model in models] == PUBLISHED["fid_fpr"]["fpr"]
    correlation = analysis.fid_fpr(found, dict(zip(models, PUBLISHED["fid_fpr"]["fid"], strict=True)))
    assert (round(correlation["r"], 3), round(correlation["p_t"], 3), round(correlation["p"], 3)) == (-0.914, 0.086, 0.083)
    assert correlation["exact"]
    # Every reader took more images of DiffAug than of none for real: 2 of 32 signs are as extreme.
    test = next(one for one in analysis.model_tests(key, table, made.design) if (one.rate, one.a, one.b) == ("fpr", "diffaug", "none"))
    assert (test.test, test.readers, test.p, test.smallest_p) == ("paired", 5, 2 / 32, 2 / 32)
    assert test.mean_a - test.mean_b == pytest.approx(0.26)
    # Six comparisons under Holm: 0.375, above the design's 0.10.
    assert test.adjusted == pytest.approx(6 * 2 / 32)
    assert not test.significant


# Worked by hand.


def test_one_reader_by_hand(clinicians):
    made, key = clinicians
    [row] = analysis.rows(key, judged(made, key, {"R1": (40, 10)}), made.design)
    assert (row.n, row.tp, row.fp, row.tn, row.fn, row.complete) == (100, 40, 10, 40, 10, True)
    assert (row.accuracy, row.recall, row.fpr) == (0.8, 0.8, 0.2)
    # Clopper and Pearson for 80 of 100: 0.708 to 0.873.
    assert (round(row.accuracy_low, 3), round(row.accuracy_high, 3)) == (0.708, 0.873)
    # z(40.5/51) - z(10.5/51) = 2 z(40.5/51); counts of real and synthetic images are a half and one more.
    assert row.d_prime == pytest.approx(2 * NormalDist().inv_cdf(40.5 / 51))
    assert row.criterion == pytest.approx(0, abs=1e-12)


def test_a_ratings_mean_and_area_under_the_curve(clinicians):
    made, key = clinicians
    # Real: 4 or, of those called synthetic, 2; synthetic: 2 or, of those called real, 4. Of 50 x 50 pairs:
    # 40 x 40 above, 40 x 10 + 10 x 40 equal, 10 x 10 below.
    [row] = analysis.rows(key, judged(made, key, {"R1": (40, 10)}), made.design)
    assert (row.likert_real, row.likert_fake) == (pytest.approx(3.6), pytest.approx(2.4))
    assert row.likert_auc == pytest.approx((1600 + 800 / 2) / 2500)


def test_fleiss_own_kind_of_table():
    """Fleiss' kappa of the textbook table of 14 raters, 10 subjects and 5 categories: 0.210."""
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert analysis.fleiss_kappa(table) == pytest.approx(0.20993, abs=1e-5)
    assert analysis.fleiss_kappa([[3, 0], [0, 3]]) == 1
    assert analysis.fleiss_kappa([[3, 0], [3, 0]]) is None


def test_means_rest_on_complete_readers_alone(clinicians):
    made, key = clinicians
    answers = answers_of(made, key, {"R1": (40, 10), "R2": (30, 20), "R10": (50, 0)})
    answers = [one for one in answers if one.reader != "R10" or one.item != made.sections[0].items[0]]
    found = analysis.judgements(made, key, answers)
    table = analysis.rows(key, found, made.design)
    assert [(row.reader, row.complete) for row in table] == [("R1", True), ("R2", True), ("R10", False)]
    [summary] = analysis.summaries(key, table, found, made.design)
    assert summary.readers == 2
    assert summary.means["accuracy"] == (pytest.approx(0.7), pytest.approx(np.std([0.8, 0.6], ddof=1)), 2)
    assert (summary.pooled.tp, summary.pooled.fp) == (70, 30)
    # t with one degree of freedom: 0.7 +- 12.706 * 0.1 is cut to 0 ... 1.
    assert (summary.accuracy.low, summary.accuracy.high) == (0, 1)
    assert summary.equivalence == pytest.approx(0.5)


def test_equivalence_is_the_farther_end_of_the_90_percent_interval():
    # Clopper and Pearson at 90 % for 50 of 100: 0.4136 to 0.5864.
    assert analysis.equivalence(50, 100) == pytest.approx(0.0864, abs=1e-4)
    assert analysis.equivalence(100, 100) == pytest.approx(0.5)


def test_pairs_have_an_accuracy_and_no_rates(tmp_path):
    made = study(tmp_path / "s", PAIRS)
    key = read_key(tmp_path / "s")
    items = made.sections[0].items
    answers = [
        Answer(
            study=made.id,
            reader="R1",
            section=made.sections[0].key,
            item=item,
            answer=key[item].truth if n < 15 else "ab"[key[item].truth == "a"],
        )
        for n, item in enumerate(items)
    ]
    [row] = analysis.rows(key, analysis.judgements(made, key, answers), made.design)
    assert (row.accuracy, row.precision, row.fpr, row.criterion) == (0.75, None, None, None)
    assert row.d_prime == pytest.approx(2**0.5 * NormalDist().inv_cdf(15.5 / 21))


def test_a_reader_who_calls_nothing_real_has_no_precision(clinicians):
    made, key = clinicians
    found = judged(made, key, {"R1": (0, 0), "R2": (25, 25)})
    table = analysis.rows(key, found, made.design)
    assert (table[0].precision, table[0].recall) == (None, 0)
    assert analysis.summaries(key, table, found, made.design)[0].means["precision"] == (0.5, None, 1)
    assert analysis.fpr_fnr(table)["r"] is None


def test_one_section_of_two_models_is_told_apart_by_model(tmp_path):
    made = study(tmp_path / "s", Design(name="mixed", real=10, fake=10), ("a", "b"))
    key = read_key(tmp_path / "s")
    # The reader sees through model a and believes model b.
    answers = [
        Answer(study=made.id, reader="R1", section=made.sections[0].key, item=item, answer="fake" if truth.model == "a" else "real")
        for item, truth in key.items()
    ]
    table = analysis.rows(key, analysis.judgements(made, key, answers), made.design)
    assert {row.model: (row.fpr, row.recall, row.n) for row in table} == {"all": (0.5, 1, 20), "a": (0, 1, 15), "b": (1, 1, 15)}


# Bad input.


def test_answers_that_do_not_belong_here(clinicians):
    made, key = clinicians
    good = answers_of(made, key, {"R1": (40, 10)})
    one = good[0]

    def changed(**values):
        return [Answer(**{**vars(one), **values}), *good[1:]]

    for answers, words in [
        ([], "there is no answer"),
        (changed(study="f" * 16), "another study"),
        (changed(item="f" * 16), "the study's key does not have"),
        (changed(section="elsewhere"), "the study's key does not have"),
        (changed(answer="a"), "neither real nor fake"),
        (changed(likert=6), "likert is 6"),
        ([*good, one], "reader 'R1' has two answers"),
    ]:
        with pytest.raises(DataError, match=words):
            analysis.judgements(made, key, answers)
