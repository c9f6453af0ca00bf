import pytest

from medgan.errors import ConfigError, DataError
from medgan.metrics.comparison import comparable, compare_results


def evaluation(fid=20.0, *, n_real=1000, n_fake=1000, resize="tf1", sha256="a", real="r", kid=0.02, interval=(18.0, 22.0), infinity=None):
    entry = {"value": fid, "interval": list(interval), "higher_is_better": False}
    if infinity is not None:
        entry["infinity"] = {"value": infinity, "interval": [infinity - 1, infinity + 1]}
    return {
        "metrics": {"fid": entry, "kid": {"value": kid}},
        "n_real": n_real, "n_fake": n_fake, "resize": resize, "extractor": {"name": "x", "sha256": sha256}, "real": real,
    }  # fmt: skip


def test_equal_conditions_are_compared_by_hand():
    found = compare_results(evaluation(), evaluation(15.0, interval=(13.0, 17.0), kid=0.03))
    assert found["unequal"] == {}
    assert found["metrics"]["fid"] == {"a": 20, "b": 15, "difference": -5, "relative_improvement": 0.25, "intervals": "apart"}
    assert found["metrics"]["kid"]["relative_improvement"] == pytest.approx(-0.5)
    assert found["metrics"]["kid"]["intervals"] == "unknown"


def test_intervals_that_meet_overlap():
    assert compare_results(evaluation(), evaluation(17.0, interval=(16.0, 18.0)))["metrics"]["fid"]["intervals"] == "overlap"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_fake": 50_000}, "1,000 and 50,000 synthetic images"),
        ({"n_real": 500}, "1,000 and 500 real images"),
        ({"n_fake": None}, "1,000 and an unknown number of synthetic images"),
        ({"resize": "pytorch-fid"}, "resize rules differ"),
        ({"sha256": "b"}, "extractors differ"),
        ({"real": "other"}, "real sets differ"),
    ],
)
def test_other_conditions_are_refused_unless_asked_for(change, reason):
    with pytest.raises(DataError, match=reason) as caught:
        compare_results(evaluation(), evaluation(15.0, **change))
    assert "--unequal" in caught.value.fix
    found = compare_results(evaluation(), evaluation(15.0, **change), unequal=True)
    assert found["metrics"]["fid"]["difference"] == -5
    assert reason in found["unequal"]["fid"][0]


def test_kid_is_unbiased_and_compared_at_any_number():
    assert comparable(evaluation(), evaluation(n_fake=50_000), "kid") == []
    found = compare_results(evaluation(), evaluation(n_fake=50_000), metrics=["kid"])
    assert list(found["metrics"]) == ["kid"]


def test_figures_under_other_settings_are_refused():
    """Three neighbours and five are other metrics under one name; a setting that one of them does not mention is not known to differ."""

    def of(**settings):
        return evaluation() | {"metrics": {"precision_pixels": {"value": 0.5, **settings}}}

    assert comparable(of(k=3, within="set"), of(k=3), "precision_pixels") == []
    assert comparable(of(k=3, within="set"), of(k=5, within="class"), "precision_pixels") == ["k is 3 and 5", "within is set and class"]
    with pytest.raises(DataError, match="cannot be compared: k is 3 and 5"):
        compare_results(of(k=3), of(k=5))


def test_an_older_file_without_its_real_set_is_compared():
    assert comparable(evaluation(real=""), evaluation(), "fid") == []


def test_fid_infinity_is_compared_where_both_have_it():
    found = compare_results(evaluation(infinity=12.0), evaluation(15.0, infinity=6.0))["metrics"]["fid"]
    assert found["infinity"] == {"a": 12, "b": 6, "difference": -6, "relative_improvement": 0.5, "intervals": "apart"}
    assert "infinity" not in compare_results(evaluation(infinity=12.0), evaluation())["metrics"]["fid"]


def test_nothing_relative_is_said_of_a_kid_below_zero():
    assert compare_results(evaluation(kid=-0.001), evaluation())["metrics"]["kid"]["relative_improvement"] is None


def test_metrics_that_are_not_in_both_are_refused():
    with pytest.raises(ConfigError, match="fid50k_full is not in both"):
        compare_results(evaluation(), evaluation(), metrics=["fid50k_full"])
    other = evaluation() | {"metrics": {"ppl": {"value": 1.0}}}
    with pytest.raises(DataError, match="no metric in common"):
        compare_results(evaluation(), other)
