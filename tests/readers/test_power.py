import json

import numpy as np
import pytest
from scipy import stats

from medgan.readers.design import DESIGNS, Design
from medgan.readers.power import POWER, lines, power


def test_from_61_of_100_on_a_reader_is_better_than_chance():
    # P(X >= 61) = 0.0176 and P(X >= 60) = 0.0284 for 100 tosses of a coin; twice that against 0.05.
    found = power(DESIGNS["clinician"], models=1, readers=7)
    assert found.right_above_chance == 61
    assert stats.binomtest(61, 100).pvalue <= 0.05 < stats.binomtest(60, 100).pvalue
    assert stats.binom.sf(60, 100, found.accuracy_one_reader) == pytest.approx(POWER)
    low, high = stats.binomtest(50, 100).proportion_ci(0.90, method="exact")
    assert found.equivalence_one_reader == pytest.approx(0.5 - low) == pytest.approx(high - 0.5)


def test_the_mean_accuracy_is_found_as_often_as_said():
    found = power(DESIGNS["clinician"], models=1, readers=7)
    rng = np.random.default_rng(0)
    drawn = rng.normal(found.accuracy_mean, 0.0956, (20_000, 7))
    assert (stats.ttest_1samp(drawn, 0.5, axis=1).pvalue < 0.05).mean() == pytest.approx(POWER, abs=0.01)


@pytest.mark.parametrize(
    ("models", "readers", "smallest"), [(2, 4, 0.125), (2, 5, 0.0625), (4, 5, 0.375), (4, 6, 0.1875), (4, 7, 0.09375), (4, 2, 1)]
)
def test_two_models_need_five_readers_at_ten_percent_and_four_models_seven(models, readers, smallest):
    """2/2^readers, times the six pairs of four models after Holm."""
    found = power(DESIGNS["multi-model"], models=models, readers=readers)
    assert found.smallest_p == smallest
    assert any("no outcome can be significant" in line for line in lines(found, DESIGNS["multi-model"])) is (smallest > 0.10)


def test_what_a_design_cannot_show_is_none():
    few = power(Design(name="few", real=2, fake=2), models=1, readers=1)
    assert (few.right_above_chance, few.accuracy_one_reader, few.accuracy_mean, few.difference, few.smallest_p) == (None,) * 5
    assert "cannot show anything but chance" in lines(few, Design(name="few", real=2, fake=2))[0]
    assert json.dumps(
        lines(power(Design(name="p", kind="2afc", real=30, fake=30), models=2, readers=6), Design(name="p", kind="2afc", real=30, fake=30))
    )
