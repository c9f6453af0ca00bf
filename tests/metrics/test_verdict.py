"""What an audit says, from results made up for the purpose."""

import pytest

from medgan.metrics.verdict import limits, percent, problem, statement


def result(**changes):
    found = {
        "n_fake": 200, "flat": {"fake": 0}, "calibrated": True, "calibrated_on": "held-out patients", "calibration_patients": 400,
        "why_not_calibrated": "", "patients_known": True, "train_patients": 500, "held_out_patients": 400, "held_out_duplicates": 0,
        "near_copies": {"count": 0, "ncc": 0.99, "interval": [0.0, 0.019]},
        "count_test": {"count": 9, "p": 0.0012, "expected_share": 0.01}, "refused_for": [],
        "power": {"planted": 100, "recognised": 1.0, "interval": [0.963, 1.0], "against": {"0.1 %": 0.18, "1 %": 0.87, "2 %": 0.98, "5 %": 1.0}},
        "false_alarm": {"at_most": 0.0067}, "features": {"name": "inception-2015-12-05"}, "problem": "",
    }  # fmt: skip
    return found | changes


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (5e-5, "less than 0.01 %"), (0.0067, "0.67 %"), (0.25, "25 %"), (0.996, "100 %"), (1, "100 %")]
)
def test_shares_are_written_as_people_read_them(share, text):
    assert percent(share) == text


def test_a_pass_in_full():
    assert statement(result()) == (
        "No near copy was found among 200 synthetic images: none correlates with a training image by 0.9900 or more. "
        "Of 100 near copies planted for this audit, 100 % are recognised at this threshold (95 % interval 96 % to 100 %). "
        "So the probability to find any would be 18 %, 87 %, 98 % and 100 % if 0.1 %, 1 %, 2 % and 5 % of all images were such copies. "
        "The thresholds come from 400 held-out patients; as many images that lie no nearer to training patients than those do would be refused "
        "with a probability of at most 0.67 %. Whether something of a patient can be learned in other ways was not tried."
    )


def test_a_refusal_names_its_rule():
    one, some = ({"count": count, "ncc": 0.99, "interval": [0, 1]} for count in (1, 3))
    assert problem(result(near_copies=one)) == "1 of 200 images is a near copy of a training slice"
    assert problem(result(near_copies=some, refused_for=["near copies", "count"])) == "3 of 200 images are near copies of training slices"
    assert problem(result(refused_for=["count"])) == (
        "9 of 200 images lie nearer to training slices than other patients' images do, 2 are expected at most (p = 0.001)"
    )
    assert problem(result()) == ""


def test_three_limits_are_those_of_every_audit():
    """Of one that is calibrated on many known held-out patients, by Inception, with full power and nothing odd."""
    assert len(limits(result())) == 3
    assert limits(result())[0].endswith(
        "with none found, up to 1.9 % of its images may be recognisable near copies (95 % Wilson interval)."
    )
    found = limits(result(near_copies={"count": 2, "ncc": 0.99, "interval": [0.001, 0.04]}))
    assert found[0] == "Only these 200 images were looked at. Another image of the same generator may be a copy."


WEAK = {"planted": 100, "recognised": 0.79, "interval": [0.7, 0.86], "against": {}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"power": WEAK}, "Of the planted near copies only 79 % were recognised: different patients' images are so alike, or noise is so strong, that a near copy hardly stands out in this data."),
        ({"power": WEAK | {"recognised": 0.0}}, "Of the planted near copies none were recognised: different patients' images are so alike, or noise is so strong, that a near copy hardly stands out in this data."),
        ({"calibrated": False, "why_not_calibrated": "nobody is there"}, "Nothing was calibrated, because nobody is there: what is normal between patients is unknown here."),
        ({"calibrated_on": "halves of the training patients", "held_out_patients": 7}, "There are 7 held-out patients: what is normal was learned from one half of the training patients, 400 of them, compared with the other half."),
        ({"patients_known": False}, "The sets do not say whose images they are, so each counted as a patient of its own: where a patient has several, neither thresholds nor false alarms are right."),
        ({"train_patients": 1}, "All training images are of one patient: every honest image of this generator may show that patient, and no distance can tell."),
        ({"calibration_patients": 299}, "The count, in which a patient counts once, has little power with 299 patients."),
        ({"held_out_duplicates": 4}, "4 held-out images are training images too; all images of their patients were left out of the calibration."),
        ({"flat": {"fake": 6}}, "6 synthetic images are flat and were not judged."),
        ({"features": {"name": "thumbnails-24"}}, "Features are grey thumbnails, not those of a network: a copy that differs in grey values but not in content is not recognised."),
    ],
)  # fmt: skip
def test_each_weakness_is_said_and_nothing_else(changes, said):
    usual, found = limits(result()), limits(result(**changes))
    assert [line for line in found if line not in usual] == [said]
    assert len(found) == 4


def test_a_fixed_threshold_is_given_as_the_reason_for_little_power():
    found = limits(result(power=WEAK, calibrated=False, why_not_calibrated="nobody is there"))
    assert "only 79 % were recognised: the fixed threshold is strict" in found[3]
