"""The sentence and the checks say what the folder says, in both directions."""

from __future__ import annotations

import pytest
import torch

from medgan.reports.results import read_results
from medgan.reports.verdict import amount, verdict
from medgan.training.statistics import Collector
from tests.reports.folder import evaluation, html, lines, make_run, manifest_rows, table, ticks, write


def states(run):
    return {check.name: check.state for check in verdict(read_results(run)).checks}


def text(run, name):
    return next(check.text for check in verdict(read_results(run)).checks if check.name == name)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (2.0, "2"), (1.5, "1.5"), (25000, "25,000"), (0.1066855, "0.1067"), (123.47724, "123.5"), (-0.00012345, "-0.0001234")],
)
def test_numbers_are_short_and_true(value, shown):
    assert amount(value) == shown


def test_the_small_run_is_complete_with_remarks(tmp_path):
    run = make_run(tmp_path)
    judged = verdict(read_results(run))
    assert judged.title == "Complete, with remarks"
    assert judged.sentence == (
        "A generator was trained on 92 images of 2 patients with 2,000 images shown; its synthetic images have an FID of 208.55, "
        "a smoke figure, because too few images stand behind it."
    )
    assert list(states(run).values()) == ["look", "good", "good", "good", "look", "good", "good"]
    assert text(run, "FID during training") == (
        "It fell from 412.31 at 0.5 kimg to 212.47 at 1.5 kimg and was 230.99 at the end, and the network of the lowest value was kept."
    )


def test_enough_data_and_images_leave_no_remark(tmp_path):
    run = make_run(tmp_path)
    rows = manifest_rows(1000)
    for n, row in enumerate(rows):
        row["subject_key"] = f"{n % 30:08x}"
    table(run / "dataset/manifest.csv", rows)
    write(run / "metrics.json", evaluation(5.31, n_real=10600, n_fake=50000))
    judged = verdict(read_results(run))
    assert judged.title == "Complete"
    assert "smoke" not in judged.sentence
    assert {check.state for check in judged.checks} == {"good"}


@pytest.mark.parametrize(("n_real", "n_fake", "state"), [(2048, 2048, "good"), (2047, 50000, "look"), (50000, 2047, "look")])
def test_either_set_being_small_makes_a_smoke_figure(tmp_path, n_real, n_fake, state):
    run = make_run(tmp_path)
    write(run / "metrics.json", evaluation(5.31, n_real=n_real, n_fake=n_fake))
    assert states(run)["Final FID"] == state


@pytest.mark.parametrize("status", [{}, {"status": "partial"}, {"status": "preempted"}])
def test_a_run_that_stopped_early_is_partial(tmp_path, status):
    run = make_run(tmp_path)
    lines(run / "stats.jsonl", ticks(count=5))
    write(run / "status.json", status)
    judged = verdict(read_results(run))
    assert judged.title == "Partial run"
    assert "1,250 images shown of the 2,000 asked for" in judged.sentence
    assert "1.25 of 2 kimg" in text(run, "Length of the run")


def test_a_fraction_of_an_image_is_no_reason_to_call_a_run_partial(tmp_path):
    run = make_run(tmp_path)
    write(run / "config.json", {"kimg": 2.0004})
    assert states(run)["Length of the run"] == "good"


def test_a_loss_that_was_not_finite_is_a_problem(tmp_path):
    run = make_run(tmp_path)
    assert text(run, "Training") == "All gradients stayed finite, and a generator was written."
    rows = ticks()
    collect = Collector()
    collect.add("Loss/D/loss", torch.tensor([1.0, float("nan")]))
    collect.add("Loss/G/loss", torch.tensor([1.0, 2.0]))
    # As training/loop.py writes it: the loss has no entry, only the count tells.
    last = {name: rows[-1][name] for name in ("tick", "kimg", "nimg", "seconds", "sec_per_kimg")}
    rows[-1] = {**last, "nonfinite": 12, **collect.summary()}
    assert "Loss/D/loss" not in rows[-1]
    lines(run / "stats.jsonl", rows)
    assert verdict(read_results(run)).title == "Something went wrong"
    assert text(run, "Training").startswith("12 entries of the losses and gradients had no finite value")


def test_an_alarm_of_the_training_is_a_remark_and_a_warning(tmp_path):
    run = make_run(tmp_path)
    rows = ticks()
    rows[3] |= {"alarms": [{"code": "W_DIVERSITY", "text": "samples are <too> alike"}]}
    rows[6] |= {"alarms": [{"code": "W_OVERFIT", "text": "it knows the former"}, {"code": "W_DIVERSITY", "text": "again"}]}
    lines(run / "stats.jsonl", rows)
    assert states(run)["Training"] == "look"
    assert "raised an alarm: W_DIVERSITY, W_OVERFIT." in text(run, "Training")
    results = read_results(run)
    assert results.alarms[0] == (1.0, "W_DIVERSITY", "samples are <too> alike")
    page = html(run)
    assert "<code>W_DIVERSITY</code></th><td>From 1 kimg on: samples are &lt;too&gt; alike." in page
    assert page.count("<code>W_OVERFIT</code></th><td>From 1.75 kimg on: it knows the former.") == 1


@pytest.mark.parametrize(
    ("outcome", "state", "title"),
    [
        ("passed", "good", "Complete, with remarks"),
        ("not calibrated", "look", "Complete, with remarks"),
        ("refused", "bad", "Not to be given out"),
        (None, "missing", "Trained, results incomplete"),
        (3, "missing", "Trained, results incomplete"),
    ],
)
def test_the_light_of_the_privacy_audit_is_its_verdict(tmp_path, outcome, state, title):
    run = make_run(tmp_path)
    if outcome is None:
        (run / "audit/audit.json").unlink()
    else:
        write(run / "audit/audit.json", {"verdict": outcome, "n_fake": 64})
    assert (states(run)["Privacy"], verdict(read_results(run)).title) == (state, title)


@pytest.mark.parametrize(
    ("far", "near", "state"), [(0.5, 1.0, "good"), (0.49, 1.0, "look"), (1.0, 0.49, "look"), (2.0, 0.5, "good"), (2.01, 1.0, "look")]
)
def test_the_light_of_variety_is_half_to_twice_that_of_real_images(tmp_path, far, near, state):
    run = make_run(tmp_path)
    lines(run / "stats.jsonl", [row | {"Diversity/distance": far, "Diversity/nearest": near} for row in ticks()])
    assert states(run)["Variety"] == state
    lines(run / "stats.jsonl", ticks())
    assert states(run)["Variety"] == "missing"


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ([(1, 300.0)], "one point shows no trend"),
        ([(1, 300.0), (2, 310.0)], "never fell below the 300.00"),
        ([(1, 300.0), (2, 200.0)], "longer training would probably lower it further"),
    ],
)
def test_a_course_that_is_no_reason_for_trust_is_not_called_good(tmp_path, curve, words):
    run = make_run(tmp_path)
    lines(run / "metrics.jsonl", [{"kimg": kimg, **evaluation(fid)} for kimg, fid in curve])
    assert states(run)["FID during training"] == "look"
    assert words in text(run, "FID during training")


def test_a_trained_network_nobody_evaluated_is_not_called_complete(tmp_path):
    run = make_run(tmp_path)
    (run / "metrics.json").unlink()
    judged = verdict(read_results(run))
    assert judged.title == "Trained, results incomplete"
    assert judged.sentence.endswith("its final FID was not measured.")


def test_nothing_trained_is_said(tmp_path):
    write(tmp_path / "config.json", {"kimg": 2.0})
    judged = verdict(read_results(tmp_path))
    assert judged.title == "No training yet"
    assert judged.sentence == "No training is recorded in this folder."
    assert {check.state for check in judged.checks} == {"missing"}
