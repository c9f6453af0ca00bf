"""What speaks against these images: warnings the stages left, reasons of this run, and limits that every run has."""

from __future__ import annotations

from collections.abc import Mapping

from medgan.reports.results import Results, number
from medgan.reports.verdict import FEW_FOR_FID, FEW_IMAGES, FEW_PATIENTS, LEAST_VARIETY, amount, count, final_fid, is_partial

# Synthetic against real, over real against real at equal numbers: from here on even the eye tells the two sets apart.
FAR_ABOVE_THE_FLOOR = 2

ALWAYS = (
    "Each image stands alone. Neighbouring slices do not form a volume, and nothing here says that an anatomy is possible.",
    "No image has a diagnosis, and no clinician has looked at them here. A reader study is what can say whether they look real.",
    "The generator knows the patients, scanners and protocols it was trained on, and their gaps: who is missing there is missing here.",
    "FID, KID and their kin look through a network made for photographs. They do not see whether a lesion is lost or invented.",
    "A model trained or tuned on synthetic images has to be tested on real ones, of other patients than these.",
)


def warnings(results: Results) -> list[tuple[str, str]]:
    """Warnings the stages left, as (code, text)."""
    found = [("W_DATASET", text) for text in results.dataset.warnings] if results.dataset else []
    found += [(code, f"From {amount(kimg)} kimg on: {text}.") for kimg, code, text in results.alarms]
    stored = results.metrics.get("warnings")
    for warning in stored if isinstance(stored, list) else []:
        if isinstance(warning, Mapping):
            found.append((str(warning.get("code", "")), str(warning.get("text", ""))))
        else:
            found.append(("", str(warning)))
    return found


def reasons(results: Results) -> list[str]:
    """Reasons of this very run not to use its images, the gravest first."""
    return [
        text for text in (*_of_the_gate(results), *_of_the_training(results), *_of_the_figures(results), *_of_the_data(results)) if text
    ]


def _of_the_gate(results: Results) -> list[str]:
    outcome = results.audit.get("verdict")
    if outcome == "refused":
        return ["The privacy audit found copies of training images. Do not give out images or generator."]
    if outcome == "passed":
        return []
    if outcome == "not calibrated":
        return ["The privacy audit had too few patients to calibrate itself: copies that are a little changed may have passed it."]
    return ["Nobody has looked for copies of training images. Do not give out images or generator before `medgan audit` has."]


def _of_the_training(results: Results) -> list[str]:
    found = []
    if results.not_finite:
        found.append("Losses or gradients had no finite value: the network cannot be trusted.")
    if results.stats and is_partial(results):
        found.append("The training stopped before its end: these images are not what the settings ask for.")
    found += [f"The training raised the alarm {code} at {amount(kimg)} kimg." for kimg, code, _ in results.alarms]
    trace = results.trace("Diversity/distance")
    if trace and trace[-1][1] < LEAST_VARIETY:
        found.append(f"The images are {amount(trace[-1][1], 2)} times as varied as the real ones: common appearances stand for rare ones.")
    psis = sorted({value for row in results.samples if (value := _float(row.get("psi"))) is not None})
    if psis and psis[0] < 1:
        found.append(f"They were truncated (psi {psis[0]:g}): more typical and less varied than what the generator learned.")
    return found


def _of_the_figures(results: Results) -> list[str]:
    fid = final_fid(results)
    if fid is None:
        return ["Their distance to the real images was not measured."] if results.model else []
    found = []
    few = [number(results.metrics.get(key)) for key in ("n_real", "n_fake")]
    if any(n is not None and n < FEW_FOR_FID for n in few):
        found.append(f"The FID rests on fewer than {FEW_FOR_FID:,} images and says little: nobody knows yet how good these images are.")
    entry = results.metrics["metrics"][fid[0]]
    floor = entry.get("floor")
    value, synthetic = (number(floor.get(key)) for key in ("value", "synthetic")) if isinstance(floor, Mapping) else (None, None)
    if value and synthetic and synthetic / value >= FAR_ABOVE_THE_FLOOR:
        found.append(
            f"At equal numbers their {fid[0]} is {synthetic / value:.1f} times that of real images against real images: the two can be told apart."
        )
    return found


def _of_the_data(results: Results) -> list[str]:
    dataset = results.dataset
    if dataset is None or not dataset.images:
        return ["Nobody wrote down what the network was trained on."]
    found = []
    if dataset.images < FEW_IMAGES:
        found.append(f"{count(dataset.images, 'image')} are few: below {FEW_IMAGES:,} a generator mostly repeats what it saw.")
    if dataset.patients and dataset.patients < FEW_PATIENTS:
        found.append(
            f"{count(dataset.patients, 'patient')} cannot stand for a population; below {FEW_PATIENTS} the images vary little between patients."
        )
    if not dataset.held_out:
        found.append("No patient was held out: nothing here shows how the generator does on patients it has not seen.")
    if dataset.recipe.get("intensity") == "window" and number(dataset.recipe.get("width")):
        found.append("Grey values outside the window were cut off and cannot be had back; quantities (HU) hold inside it only.")
    source = results.model.get("source")
    if isinstance(source, Mapping) and "dataset" in results.model:
        found.append("The training began with a network of other pictures, of which traces may remain; its licence binds what came of it.")
    return found


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
