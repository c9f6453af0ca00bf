"""The result of an audit in sentences that claim no more than was measured."""

from __future__ import annotations

from typing import Any

from medgan.metrics.copies import SHIFT, SIDE


def percent(share: float) -> str:
    """A share as people read it, with two digits: `0.67 %`; `less than 0.01 %` where that says enough."""
    return "less than 0.01 %" if 0 < share < 1e-4 else f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def problem(result: dict[str, Any]) -> str:
    """The refusal in one line; empty where nothing is refused."""
    n, count, test = result["n_fake"], result["near_copies"]["count"], result["count_test"]
    if count:
        return f"{count} of {n} images {'is a near copy of a training slice' if count == 1 else 'are near copies of training slices'}"
    if "count" in result["refused_for"]:
        return (
            f"{test['count']} of {n} images lie nearer to training slices than other patients' images do, "
            f"{n * test['expected_share']:.2g} are expected at most (p = {test['p']:.1g})"
        )
    return ""


def statement(result: dict[str, Any]) -> str:
    """The verdict, its threshold, its power and its false alarms."""
    looked_at = result["n_fake"] - result["flat"]["fake"]
    if result["problem"]:
        return f"Refused: {result['problem']}. The nearest pairs lie in the local gallery. {_false_alarms(result)}"
    if not looked_at:
        return f"All {result['n_fake']} synthetic images are flat: there was nothing to audit."
    return (
        f"No near copy was found among {looked_at} synthetic images: none correlates with a training image by {result['near_copies']['ncc']:.4f} or more. "
        f"{_power(result)} {_false_alarms(result)} Whether something of a patient can be learned in other ways was not tried."
    )


def _power(result: dict[str, Any]) -> str:
    power = result["power"]
    low, high = power["interval"]
    chances, shares = (_listed(values) for values in ([percent(value) for value in power["against"].values()], list(power["against"])))
    return (
        f"Of {power['planted']} near copies planted for this audit, {percent(power['recognised'])} are recognised at this threshold "
        f"(95 % interval {percent(low)} to {percent(high)}). So the probability to find any would be {chances} if {shares} of all images were such copies."
    )


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _false_alarms(result: dict[str, Any]) -> str:
    if not result["calibrated"]:
        return f"The threshold is fixed and not calibrated, because {result['why_not_calibrated']}: how often it refuses honest images is not known."
    return (
        f"The thresholds come from {result['calibration_patients']} {_who(result)}; as many images that lie no nearer to training patients than those "
        f"do would be refused with a probability of at most {percent(result['false_alarm']['at_most'])}."
    )


def _who(result: dict[str, Any]) -> str:
    return (
        "held-out patients" if result["calibrated_on"] == "held-out patients" else "training patients, compared with the other half of them"
    )


def limits(result: dict[str, Any]) -> list[str]:
    """What the audit could not have seen."""
    said = [
        f"Only these {result['n_fake']} images were looked at. Another image of the same generator may be a copy"
        + (
            "."
            if result["near_copies"]["count"]
            else f"; with none found, up to {percent(result['near_copies']['interval'][1])} of its images may be recognisable near copies (95 % Wilson interval)."
        ),
        f"Copies that are moved by more than {SHIFT} px at {SIDE} px, turned by other than quarters, scaled or bent are not recognised, nor is a part of an image "
        "(a lesion, an implant, burned-in text) copied into another.",
        "Nothing was tried on the generator itself: whoever has it can search for training images with more effort than looking at its samples.",
    ]
    if result["power"]["recognised"] < 0.8:
        why = "different patients' images are so alike, or noise is so strong, that a near copy hardly stands out in this data"
        if not result["calibrated"]:
            why = "the fixed threshold is strict; patients who are held out would set one that fits this data"
        few = f"only {percent(result['power']['recognised'])}" if result["power"]["recognised"] else "none"
        said.append(f"Of the planted near copies {few} were recognised: {why}.")
    if not result["calibrated"]:
        said.append(f"Nothing was calibrated, because {result['why_not_calibrated']}: what is normal between patients is unknown here.")
    elif result["calibrated_on"] != "held-out patients":
        said.append(
            f"There are {result['held_out_patients']} held-out patients: what is normal was learned from one half of the training patients, "
            f"{result['calibration_patients']} of them, compared with the other half."
        )
    if not result["patients_known"]:
        said.append(
            "The sets do not say whose images they are, so each counted as a patient of its own: where a patient has several, neither thresholds nor false alarms are right."
        )
    if result["train_patients"] == 1:
        said.append(
            "All training images are of one patient: every honest image of this generator may show that patient, and no distance can tell."
        )
    if result["calibrated"] and result["calibration_patients"] < 300:
        said.append(f"The count, in which a patient counts once, has little power with {result['calibration_patients']} patients.")
    if result["held_out_duplicates"]:
        said.append(
            f"{result['held_out_duplicates']} held-out images are training images too; all images of their patients were left out of the calibration."
        )
    if result["flat"]["fake"]:
        said.append(f"{result['flat']['fake']} synthetic images are flat and were not judged.")
    if result["features"]["name"].startswith("thumbnails"):
        said.append(
            "Features are grey thumbnails, not those of a network: a copy that differs in grey values but not in content is not recognised."
        )
    return said
