"""A plan against hand-worked figures, the loop's own schedule, and real steps."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medgan import runs
from medgan.errors import DataError
from medgan.training.calibrate import calibrate, kinds
from medgan.training.config import TrainConfig, for_set, preset
from medgan.training.devices import DEVICES, FITS, combine, memory_features, nearest, time_features
from medgan.training.loop import train
from medgan.training.plan import batch_gpus, fitted, plan, schedule
from tests.conftest import ROOT
from tests.golden import Golden
from tests.toy import discs, tiny


def test_the_official_schedule(golden):
    rows = Golden(golden, "schedule")["ticks/batch32_total2000kimg"].numpy()
    assert schedule(TrainConfig(kimg=2000, batch=32))[1:] == (len(rows), rows[:, 2].sum())


@pytest.mark.parametrize(("kimg", "tick", "every"), [(0.032, 0.008, 2), (0.03, 0.006, 3), (0.004, 1, 50), (0.024, 0.004, 4)])
def test_a_run_has_the_ticks_and_snapshots_that_were_planned(tmp_path, kimg, tick, every):
    config = tiny(kimg=kimg, tick_kimg=tick, snapshot_ticks=every)
    train(config, discs(tmp_path / "data"), tmp_path / "run", on_snapshot=lambda G: None)
    steps, ticks, snapshots = schedule(config)
    rows = runs.read_json_lines(tmp_path / "run" / runs.STATS)
    assert (ticks, steps * config.batch) == (len(rows), rows[-1]["nimg"])
    assert snapshots == len(list((tmp_path / "run" / runs.SNAPSHOTS).glob("fakes*.png")))


def planned(config, **changes):
    about = {"size": 256, "channels": 1, "images": 1000, "device": DEVICES["a100"]} | changes
    return plan(config, **about)


def derived(made):
    return {row.name: row for row in made.derived}


def test_derived_settings_by_hand():
    config = TrainConfig(batch=32, batch_gpu=4, mirror=True, beta1=0.9, ada_kimg=500)
    rows = derived(planned(replace(config, gpus=2), size=512))
    assert rows["gamma"].value == "1.638"  # 0.0002 x 512^2 / 32
    assert "0.0002 x 512^2 / 32" in rows["gamma"].reason
    assert rows["ema half-life"].value == "10 kimg"
    assert (rows["batch per device"].value, rows["rounds of accumulation"].value) == ("4", "4")
    assert rows["learning rate of G"].value == "0.0016, betas 0.919166, 0.991992"  # STYLEGAN2, lazy regularisation
    assert rows["learning rate of D"].value.startswith("0.00188235")
    assert rows["images of the set"].value == "2000"
    assert rows["step of ADA's p"].value == "0.000256"  # 32 x 4 / 500,000
    assert derived(planned(replace(config, gamma=3.0)))["gamma"].reason == "--gamma"


def test_hours_are_seconds_of_all_images_and_all_measurements():
    made = planned(TrainConfig(kimg=1000, metrics=("fid",)))
    assert made.training_hours == pytest.approx(made.seconds_per_kimg * 1000 / 3600, rel=0.01)
    assert made.metric_hours == pytest.approx(made.snapshots * made.metric_seconds / 3600, rel=0.01)
    assert made.hours == pytest.approx(made.training_hours + made.metric_hours, rel=0.01)
    assert planned(TrainConfig(metrics=())).metric_hours == 0
    # 1000 kimg are 251 ticks of 4: KIDs of a thousand images at 0, 5, ... 250.
    with_kid = planned(TrainConfig(kimg=1000, metrics=("fid",), kid_every=5))
    kids = 51 * made.metric_seconds * 1000 / 50000 / 3600
    assert with_kid.metric_hours == pytest.approx(made.metric_hours + kids, rel=0.01)
    assert json.loads(json.dumps(made.to_json()))["derived"][0]["name"] == "gamma"


def test_the_second_papers_network_is_planned_without_what_it_has_not():
    """500 epochs of 1,214 images are 607 kimg; styles, averages and minibatch groups are StyleGAN2's."""
    config = for_set(preset("paper-2308.02505", size=28), 1214)
    made = planned(config, size=28, images=1214)
    values = {row.name: row.value for row in made.derived}
    assert values["length"] == "607 kimg"
    assert values["times each is shown"] == "500"
    assert {"style rows", "ema half-life", "minibatch deviation group", "gamma"} & values.keys() == set()
    assert any("never compared with this family" in warning for warning in made.warnings)


def test_two_devices_take_half_the_time_for_the_same_batch_each():
    one, two = planned(TrainConfig(batch=16)), planned(TrainConfig(batch=32, gpus=2))
    assert two.seconds_per_kimg == pytest.approx(one.seconds_per_kimg / 2, rel=0.02)


def test_the_largest_batch_that_fits_is_named_and_fits():
    config = TrainConfig(batch=64)
    made = planned(config, size=1024, device=DEVICES["t4"])
    n = made.largest_batch_gpu
    assert f"--batch-gpu {n} fits" in made.warnings[0]
    held = [
        combine(memory_features(config, DEVICES["t4"], size=1024, channels=1, batch_gpu=b), (1, *FITS["cuda"].memory)) for b in (n, 2 * n)
    ]
    assert held[0] <= 0.9 * 16e9 < held[1]
    assert not any("too much" in warning for warning in planned(replace(config, batch_gpu=n), size=1024, device=DEVICES["t4"]).warnings)
    assert planned(config, size=1024, device=DEVICES["t4"], device_memory=10**8).largest_batch_gpu == 0


def test_host_memory_by_hand():
    """Two GPUs: two processes of 4 GB, each with three pinned batches of 8 images of 256 x 256; a sheet of 64 images in float32 and 8 bits; 8192 bytes for the
    features of each of 1000 + 5000 images, and ten matrices."""
    config = TrainConfig(batch=16, gpus=2, metrics=("fid",), metric_images=5000)
    made = planned(config)
    assert made.host_bytes == 2 * (4_000_000_000 + 3 * 8 * 65536) + 5 * 64 * 65536 + 6000 * 8192 + 10 * 8 * 2048**2
    # Sixteen bits double what is pinned; without a decoded file, the set of 65 MB stays in memory.
    assert planned(config, bits=16).host_bytes - made.host_bytes == 2 * 3 * 8 * 65536
    assert planned(replace(config, cache_gib=0)).host_bytes - made.host_bytes == 1000 * 65536
    assert made.disk_bytes["decoded"] == 1000 * (65536 + 32) + 4096
    assert planned(replace(config, cache_gib=0)).disk_bytes["decoded"] == 0


def test_a_time_budget_that_is_too_short_is_said():
    made = planned(TrainConfig(time_budget="1h"))
    part = 25000 / made.hours
    assert any(f"at about {part:.3g} of 25000 kimg" in warning for warning in made.warnings)


def test_a_size_without_networks_is_refused():
    with pytest.raises(DataError, match="no networks for 100 px"):
        planned(TrainConfig(), size=100)


def test_traffic_and_calls_by_hand():
    """Twice the batch per device halves the calls per image, nothing else; two threads halve arithmetic and traffic."""
    config, cpu = TrainConfig(batch=8, augment="none"), DEVICES["cpu"]
    one = time_features(config, cpu, size=64, channels=1, batch_gpu=4, precision="fp32")
    two = time_features(config, cpu, size=64, channels=1, batch_gpu=8, precision="fp32", threads=2)
    assert np.array(one) / two == pytest.approx([2, 2, 2])
    a100 = time_features(config, DEVICES["a100"], size=64, channels=1, batch_gpu=8, precision="tf32")
    ieee = time_features(config, DEVICES["a100"], size=64, channels=1, batch_gpu=8, precision="fp32")
    assert ieee[0] / a100[0] == pytest.approx(156 / 19.5)


def test_bfloat16_halves_what_is_above_4_px_and_computes_it_at_its_own_peak():
    """At 32 px nearly all arithmetic is from 8 px on: between TF32's peak and its own; a GPU without it gains no arithmetic."""
    config, shape = TrainConfig(batch=8, augment="none"), {"size": 32, "channels": 1, "batch_gpu": 8}
    a100, bf16 = (np.array(time_features(config, DEVICES["a100"], **shape, precision=p)) for p in ("tf32", "bf16"))
    assert 1.8 < a100[0] / bf16[0] < 312 / 156
    assert a100[2] == bf16[2]
    held, half = (memory_features(config, DEVICES["a100"], **shape, precision=p)[1] for p in ("fp32", "bf16"))
    assert 1.9 < held / half < 2
    t4 = [time_features(config, DEVICES["t4"], **shape, precision=p)[0] for p in ("fp32", "bf16")]
    assert t4[0] == pytest.approx(t4[1])


def test_as_many_images_at_a_time_as_fit():
    """Batch 32 in groups of 4: half the memory of what fits takes fewer images, never a smaller group, never what somebody gave."""
    config, shape = TrainConfig(batch=32), {"size": 256, "channels": 1, "device": DEVICES["a100"]}
    held = {
        n: combine(memory_features(config, DEVICES["a100"], size=256, channels=1, batch_gpu=n), (1, *FITS["cuda"].memory)) / 0.9
        for n in (32, 8, 4)
    }
    assert batch_gpus(config) == [32, 16, 8, 4, 2]
    assert fitted(config, **shape, memory=int(held[32]) + 1) is config
    assert fitted(config, **shape, memory=int(held[32]) - 1).round_size == 16
    assert fitted(config, **shape, memory=int(held[8]) + 1).round_size == 8
    assert fitted(config, **shape, memory=int(held[4]) - 1) is config
    given = TrainConfig(batch=32, batch_gpu=16)
    assert fitted(given, **shape, memory=int(held[8])) is given


def fit_script():
    spec = importlib.util.spec_from_file_location("fit_plan", ROOT / "benchmarks" / "fit_plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_stored_coefficients_are_the_fit_to_the_stored_rows(kind: str):
    script = fit_script()
    rows = script.published_rows() if kind == "cuda" else script.measured_rows(ROOT / "benchmarks" / "plan_cpu.jsonl")
    fitted, stored = script.fit(rows), FITS[kind]
    assert stored.time == pytest.approx(fitted["time"], rel=0.01)
    assert stored.memory == pytest.approx(fitted["memory"], rel=0.01)
    assert stored.time_error == pytest.approx(fitted["time_error"], abs=0.01)
    assert stored.memory_error == pytest.approx(fitted["memory_error"], abs=0.01)


def test_a_fit_finds_the_coefficients_that_made_the_numbers():
    script = fit_script()
    features = np.random.default_rng(0).uniform(1, 9, (12, 3)) * [1e-4, 1e-6, 10]
    truth = np.array([3.0, 500.0, 2e-4])
    assert script.relative_fit(features, features @ truth) == pytest.approx(truth)
    assert max(script.leave_one_out(features, features @ truth, np.arange(12))) < 1e-9


@pytest.mark.parametrize(
    ("name", "memory", "device", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", 85, "a100-80gb", True),
        ("NVIDIA A100-PCIE-40GB", 42, "a100", True),
        ("NVIDIA H200", 150, "h200", True),
        ("Tesla V100-SXM2-32GB", 34, "v100", True),
        ("NVIDIA GeForce RTX 4090", 25, "rtx-4090", True),
        ("Tesla T4", 16, "t4", True),
        ("Some GPU of 2031", 150, "h200", False),
    ],
)
def test_classes_of_gpus(name, memory, device, known):
    assert (nearest(name, memory)[0].name, nearest(name, memory)[1]) == (device, known)


def test_kinds_of_steps_by_hand():
    assert kinds(TrainConfig()) == {"main+path+r1": (0, 1 / 16), "main": (1, 12 / 16), "main+path": (4, 3 / 16)}
    assert kinds(TrainConfig(pl_weight=0.0)) == {"main+r1": (0, 1 / 16), "main": (1, 15 / 16)}
    assert kinds(TrainConfig(pl_weight=0.0, d_reg_interval=0)) == {"main": (0, 1)}


@pytest.mark.parametrize("changes", [{}, {"augment": "diffaugment"}, {"batch": 8, "batch_gpu": 4, "pl_weight": 0.0}])
def test_calibration_weights_real_steps_as_a_run_has_them(changes):
    config = tiny(**changes)
    state = torch.get_rng_state()
    measured = calibrate(config, size=32, channels=3, c_dim=2, device=torch.device("cpu"), repeats=1)
    torch.set_rng_state(state)
    assert set(measured.phases) == set(kinds(config))
    expected = sum(measured.phases[name] * share for name, (_, share) in kinds(config).items()) / 4
    assert measured.seconds_per_image == pytest.approx(expected)
    assert 10**8 < measured.peak_bytes < 10**11
    made = plan(config, size=32, channels=3, images=0, device=DEVICES["cpu"], calibration=measured)
    assert made.seconds_per_kimg == pytest.approx(1000 * measured.seconds_per_image, rel=0.01)
    assert made.error == (0, 0)


def test_the_explanation_states_the_stored_coefficients_and_errors():
    text = (ROOT / "docs" / "explanation" / "plan.md").read_text(encoding="utf-8")
    for kind, name in (("cuda", "GPU"), ("cpu", "CPU")):
        a, b, c = FITS[kind].time
        assert f"| {name} | {a:.2f} | {b:.{2 if b < 100 else 0}f} | {1000 * c:.2f} ms | " in text
        for median, largest in (FITS[kind].time_error, FITS[kind].memory_error):
            assert f"| {100 * median:.0f} % | {100 * largest:.0f} % |" in text
