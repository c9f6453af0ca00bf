"""The verdict: one sentence in plain words, and one check per thing that can be wrong with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medgan.reports.results import FID_NAMES, DatasetFacts, Results, metric_value, number

# Advice of the data room as well: below these a generator mostly repeats what it saw.
FEW_IMAGES = 1000
FEW_PATIENTS = 30
# Fewer images than Inception's 2048 features leave the covariance singular; FID is then mostly bias, which grows like 1/N.
FEW_FOR_FID = 2048

# Half as varied, or twice: beyond this somebody should look. The training's own alarm asks for less (W_DIVERSITY).
LEAST_VARIETY = 0.5

STATES = {"good": "Good", "look": "Look closer", "bad": "Problem", "missing": "Missing"}
SIGNS = {"good": "●", "look": "▲", "bad": "■", "missing": "○"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: what was looked at, how it came out (a key of STATES), and why."""

    name: str
    state: str
    text: str

    @property
    def word(self) -> str:
        """The outcome in a word, so that nothing hangs on a colour."""
        return STATES[self.state]

    @property
    def sign(self) -> str:
        """The same as a shape, for a glance and for print without colour."""
        return SIGNS[self.state]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome in two or three words, the sentence, and the checks it rests on."""

    title: str
    sentence: str
    checks: list[Check]


def verdict(results: Results) -> Verdict:
    """Judge a run by what its folder holds."""
    if results.checked:
        return _of_the_data(results)
    checks = [
        _data(results.dataset),
        _training(results),
        _completeness(results),
        _fid_course(results),
        _final_fid(results),
        _variety(results),
        _privacy(results.audit),
    ]
    states = {check.state for check in checks}
    trained = bool(results.stats or results.model)
    if not trained:
        title = "No training yet"
    elif checks[-1].state == "bad":
        title = "Not to be given out"
    elif "bad" in states:
        title = "Something went wrong"
    elif checks[2].state != "good":
        title = "Partial run"
    elif "missing" in states:
        title = "Trained, results incomplete"
    else:
        title = "Complete" if states == {"good"} else "Complete, with remarks"
    return Verdict(title=title, sentence=_sentence(results), checks=checks)


def _of_the_data(results: Results) -> Verdict:
    """The verdict of a data check: nothing was trained, and nothing of a training is missing."""
    checks, n = [_data(results.dataset)], len(results.advice)
    said = f"{count(n, 'piece')} of advice below." if n else "Nothing looks wrong."
    checks.append(Check(name="Advice", state="look" if n else "good", text=said))
    if results.plans:
        fitting = [name for name, row in results.plans.items() if row.get("fits")]
        text = (
            f"The training fits the memory of {len(fitting)} of {len(results.plans)} classes of GPU; the table below has its time on each."
        )
        checks.append(Check(name="Training ahead", state="good" if fitting else "look", text=text))
    images = _images_of(results.dataset) if results.dataset and results.dataset.images else "The images"
    sentence = f"{images}, as a training would see them. Nothing was trained. {said}"
    return Verdict(title="Data check, with advice" if n else "Data check", sentence=sentence, checks=checks)


def amount(value: float, digits: int = 4) -> str:
    """A number for people: at most `digits` significant digits, thousands separated, no exponent for ordinary sizes.

    0.10668 -> 0.1067; 123.47724 -> 123.5; 25000 -> 25,000.
    """
    if value == int(value) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{float(text):,}" if "e" not in text else text


def word(value: Any) -> str:
    """A number as `amount` writes it, anything else as its own text."""
    found = number(value)
    return amount(found) if found is not None else str(value)


def fid_text(value: float) -> str:
    """An FID with the two decimals papers print."""
    return f"{value:,.2f}"


def count(n: float, noun: str) -> str:
    """A counted noun: `1 patient`, `2,000 images`."""
    return f"{amount(n)} {noun}" if n == 1 or noun == "series" else f"{amount(n)} {noun}s"


def final_fid(results: Results) -> tuple[str, float] | None:
    """Name and value of the FID of the final evaluation, the official one first; None where there is none."""
    for name in FID_NAMES:
        value = metric_value(results.metrics, name)
        if value is not None:
            return name, value
    return None


def is_partial(results: Results) -> bool:
    """Whether training stopped, or was looked at, before the length asked for."""
    if results.status.get("status") in ("partial", "preempted", "running", "failed"):
        return True
    # Training counts whole images: 0.0996 kimg are 100 of them.
    return results.kimg is not None and results.kimg_wanted is not None and results.kimg * 1000 < round(results.kimg_wanted * 1000)


def _sentence(results: Results) -> str:
    dataset, kimg, fid = results.dataset, results.kimg, final_fid(results)
    on = f" on {_images_of(dataset)}" if dataset and dataset.images else ""
    if kimg is None:
        return f"No training{on} is recorded in this folder."
    text = f"A generator was trained{on} with {count(kimg * 1000, 'image')} shown"
    if is_partial(results) and results.kimg_wanted:
        text += f" of the {amount(results.kimg_wanted * 1000)} asked for"
    if fid is None:
        return f"{text}; its final FID was not measured."
    text += f"; its synthetic images have an FID of {fid_text(fid[1])}"
    return text + (", a smoke figure, because too few images stand behind it." if _few(results.metrics) else ".")


def _images_of(dataset: DatasetFacts) -> str:
    return count(dataset.images, "image") + (f" of {count(dataset.patients, 'patient')}" if dataset.patients else "")


def _data(dataset: DatasetFacts | None) -> Check:
    if dataset is None or not dataset.images:
        return Check(name="Data", state="missing", text="The folder does not say what the network was trained on.")
    text = _images_of(dataset)
    few = [f"{FEW_IMAGES:,} images"] if dataset.images < FEW_IMAGES else []
    few += [f"{FEW_PATIENTS} patients"] if dataset.patients < FEW_PATIENTS else []
    if few:
        reason = f"{text}. With fewer than {' and '.join(few)} a generator mostly learns to repeat what it saw."
        return Check(name="Data", state="look", text=reason)
    return Check(name="Data", state="good", text=f"{text}, enough for a first model.")


def _training(results: Results) -> Check:
    if not results.stats:
        return Check(name="Training", state="missing", text="No training statistics in this folder.")
    if results.not_finite:
        entries = "1 entry" if results.not_finite == 1 else f"{amount(results.not_finite)} entries"
        text = f"{entries} of the losses and gradients had no finite value and were replaced. The network cannot be trusted."
        return Check(name="Training", state="bad", text=text)
    if results.alarms:
        codes = ", ".join(dict.fromkeys(code for _, code, _ in results.alarms))
        text = f"All gradients stayed finite, but the training raised an alarm: {codes}. The warnings below say when and why."
        return Check(name="Training", state="look", text=text)
    if not results.model:
        return Check(name="Training", state="look", text="All gradients stayed finite, but no generator has been written yet.")
    return Check(name="Training", state="good", text="All gradients stayed finite, and a generator was written.")


def _completeness(results: Results) -> Check:
    name = "Length of the run"
    kimg, wanted = results.kimg, results.kimg_wanted
    if kimg is None:
        return Check(name=name, state="missing", text="Training has not begun, or its record is missing.")
    if is_partial(results):
        text = f"Stopped after {amount(kimg)}" + (f" of {amount(wanted)} kimg" if wanted is not None else " kimg")
        return Check(
            name=name, state="look", text=f"{text}. Figures below describe what was there; the same command with the same --out resumes."
        )
    if wanted is None:
        return Check(name=name, state="look", text=f"{amount(kimg)} kimg; the settings that say how many were asked for are missing.")
    return Check(name=name, state="good", text=f"All {amount(wanted)} kimg were trained.")


def _fid_course(results: Results) -> Check:
    name = "FID during training"
    curve = results.curve(results.fid_name)
    if not curve:
        return Check(name=name, state="missing", text="It was not followed, so nobody knows whether longer training would have helped.")
    fell_and_turned = min(value for _, value in curve) < min(curve[0][1], curve[-1][1])
    return Check(name=name, state="good" if fell_and_turned else "look", text=_course(curve, results.chosen_kimg))


def _course(curve: list[tuple[float, float]], chosen: float | None) -> str:
    """How the FID went during training, in a sentence or two."""
    (first_kimg, first), (last_kimg, last) = curve[0], curve[-1]
    best_kimg, best = min(curve, key=lambda point: point[1])
    if len(curve) == 1:
        return f"Measured once, {fid_text(first)} at {amount(first_kimg)} kimg; one point shows no trend."
    if best_kimg == first_kimg:
        return f"It never fell below the {fid_text(first)} of its first measurement, at {amount(first_kimg)} kimg."
    text = f"It fell from {fid_text(first)} at {amount(first_kimg)} kimg to {fid_text(best)} at {amount(best_kimg)} kimg"
    if best_kimg == last_kimg:
        return f"{text}, the last measurement: longer training would probably lower it further."
    kept = ", and the network of the lowest value was kept" if chosen == best_kimg else ""
    return f"{text} and was {fid_text(last)} at the end{kept}."


def _few(metrics: dict[str, object]) -> bool:
    counts = [number(metrics.get("n_real")), number(metrics.get("n_fake"))]
    return any(n is not None and n < FEW_FOR_FID for n in counts)


def _final_fid(results: Results) -> Check:
    name = "Final FID"
    fid = final_fid(results)
    if fid is None:
        return Check(name=name, state="missing", text="The final images were not evaluated.")
    real, fake = number(results.metrics.get("n_real")), number(results.metrics.get("n_fake"))
    text = f"{fid_text(fid[1])} ({fid[0]})"
    if real is None or fake is None:
        return Check(name=name, state="look", text=f"{text}; it is not known how many images stand behind it.")
    text += f" from {count(real, 'real image')} and {count(fake, 'synthetic image')}."
    if _few(results.metrics):
        return Check(
            name=name,
            state="look",
            text=(
                f"{text} With fewer than {FEW_FOR_FID:,} an FID is mostly bias and too high: this one shows that the way from scans to "
                "figures works. Do not quote it and do not compare it with other runs or papers."
            ),
        )
    return Check(name=name, state="good", text=f"{text} Compare it only with figures that rest on the same numbers of images.")


def _variety(results: Results) -> Check:
    """Whether images are as varied as the real ones, by the samples that the training's watch looked at last."""
    name = "Variety"
    distance, nearest = results.trace("Diversity/distance"), results.trace("Diversity/nearest")
    if not distance or not nearest:
        return Check(name=name, state="missing", text="Nobody has compared how varied synthetic and real images are.")
    (kimg, far), (_, near) = distance[-1], nearest[-1]
    text = f"At {amount(kimg)} kimg samples lay {amount(far, 2)} times as far apart as real images, and {amount(near, 2)} times as far from their nearest other"
    collapsed = any(code == "W_DIVERSITY" for _, code, _ in results.alarms)
    if collapsed or min(far, near) < LEAST_VARIETY:
        return Check(name=name, state="look", text=f"{text}: images repeat one another. Look at the sheet below.")
    if max(far, near) > 1 / LEAST_VARIETY:
        return Check(
            name=name, state="look", text=f"{text}: they differ more than real images do, as noise and unfinished networks make them."
        )
    return Check(name=name, state="good", text=f"{text}. 1 is as varied as the real ones.")


def _privacy(audit: Mapping[str, Any]) -> Check:
    name, outcome = "Privacy", audit.get("verdict")
    if not audit:
        return Check(name=name, state="missing", text="Nobody has looked for copies of training images among the synthetic ones.")
    looked_at = number(audit.get("n_fake"))
    among = f" among {count(looked_at, 'synthetic image')}" if looked_at is not None else ""
    if outcome == "refused":
        text = (
            f"The audit refuses these images: it found copies of training images{among}. Neither they nor the generator may be given out."
        )
        return Check(name=name, state="bad", text=text)
    if outcome == "passed":
        return Check(
            name=name, state="good", text=f"The audit found no copy of a training image{among}, at a threshold set by other patients."
        )
    if outcome == "not calibrated":
        text = f"No near copy was found{among}, but at a fixed threshold: too few patients to know what is normal between patients."
        return Check(name=name, state="look", text=text)
    return Check(name=name, state="missing", text="The audit's file does not say how it ended.")
