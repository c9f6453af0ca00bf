"""Measure short trainings over a grid, and fit the model of `medgan plan` to them.

    python benchmarks/fit_plan.py measure > rows.jsonl      # this machine: its CPU, and its GPU where there is one
    python benchmarks/fit_plan.py measure --quick           # two tiny cases, to see that it runs
    python benchmarks/fit_plan.py fit rows.jsonl            # coefficients and their leave-one-out error
    python benchmarks/fit_plan.py fit benchmarks/plan_cpu.jsonl   # CPU: the stored coefficients
    python benchmarks/fit_plan.py fit --published           # GPU: the official code's tables

`measure` runs each case in a process of its own (real steps of each kind, medgan.training.calibrate) and prints one JSON line
for it; the CPU grid takes less than eight minutes on two quiet cores. `fit` prints the lines of FITS in medgan/training/devices.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from medgan.runs import commit
from medgan.training.config import TrainConfig, preset
from medgan.training.devices import DEVICES, Device, combine, memory_features, time_features

# (size, channel_base, channel_max, batch_gpu), the heaviest first: what is left out when time is up is cheap and has a neighbour.
CPU_GRID = [
    (256, 8192, 512, 2),
    (64, 16384, 512, 4),
    (128, 8192, 512, 4),
    (64, 8192, 512, 8),
    (256, 4096, 128, 4),
    (128, 4096, 256, 4),
    (64, 1024, 64, 4),
    (256, 1024, 64, 4),
    (32, 1024, 64, 4),
    (128, 2048, 128, 4),
    (64, 2048, 128, 8),
    (32, 512, 32, 8),
    (128, 1024, 64, 4),
    (64, 1024, 64, 16),
]
CUDA_GRID = [
    (64, 4096, 256, 32),
    (128, 16384, 512, 16),
    (256, 8192, 512, 8),
    (256, 16384, 512, 16),
    (256, 32768, 512, 8),
    (512, 16384, 512, 8),
    (512, 32768, 512, 4),
    (512, 32768, 512, 8),
    (1024, 32768, 512, 4),
]
SECONDS_OF_CPU_GRID = 400

# Official code, mixed precision, cfg auto and others (GPUs, size, channel_base, batch, map layers, s/kimg V100, s/kimg A100, GB a GPU), RGB:
# docs/configs.md of the stylegan3 repository, as quoted in docs/explanation/plan.md.
PUBLISHED = [
    (1, 128, 16384, 32, 12.51, 6.79, 6.2),
    (2, 128, 16384, 64, 6.43, 3.45, 6.2),
    (4, 128, 16384, 64, 3.82, 2.23, 3.5),
    (1, 256, 16384, 16, 20.84, 12.53, 4.5),
    (2, 256, 16384, 32, 10.93, 6.36, 4.5),
    (4, 256, 16384, 64, 5.39, 3.20, 4.5),
    (8, 256, 16384, 64, 3.89, 2.38, 2.6),
    (1, 512, 32768, 8, 71.59, 41.06, 6.8),
    (2, 512, 32768, 16, 36.79, 20.83, 6.8),
    (4, 512, 32768, 32, 18.12, 10.45, 6.7),
    (8, 512, 32768, 64, 9.09, 5.24, 6.8),
    (1, 1024, 32768, 4, 141.83, 90.39, 7.2),
    (2, 1024, 32768, 8, 73.13, 46.04, 7.2),
    (4, 1024, 32768, 16, 36.95, 23.15, 7.0),
    (8, 1024, 32768, 32, 18.47, 11.66, 7.3),
]


def published_rows() -> list[dict[str, Any]]:
    """The official tables as rows of this script."""
    rows = []
    for gpus, size, base, batch, v100, a100, gigabytes in PUBLISHED:
        config = replace(preset("auto", size=size, gpus=gpus), batch=batch, channel_base=base)
        for name, seconds in (("v100", v100), ("a100", a100)):
            rows.append(
                row_of(config, DEVICES[name], size, channels=3, batch_gpu=batch // gpus, precision="fp16")
                | {"seconds": seconds * gpus / 1000, "bytes": gigabytes * 1e9}
            )
    return rows


def measured_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of `measure`."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]


def row_of(
    config: TrainConfig, device: Device, size: int, *, channels: int, batch_gpu: int, precision: str, threads: int = 1
) -> dict[str, Any]:
    """What was run, and its features."""
    return {
        "device": device.name,
        "size": size,
        "channels": channels,
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "batch_gpu": batch_gpu,
        "precision": precision,
        "threads": threads,
        "time_features": time_features(
            config, device, size=size, channels=channels, batch_gpu=batch_gpu, precision=precision, threads=threads
        ),
        "memory_features": memory_features(config, device, size=size, channels=channels, batch_gpu=batch_gpu, precision=precision),
    }


def relative_fit(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients, none negative, that minimise the sum of squared relative errors."""
    scale = np.maximum((features / values[:, None]).max(axis=0), 1e-30)
    return nnls(features / values[:, None] / scale, np.ones(len(values)))[0] / scale


def leave_one_out(features: np.ndarray, values: np.ndarray, groups: np.ndarray) -> list[float]:
    """Relative error of each row, predicted by a fit to the rows of all other groups."""
    errors = []
    for i in range(len(values)):
        kept = groups != groups[i]
        errors.append(float(abs(features[i] @ relative_fit(features[kept], values[kept]) / values[i] - 1)))
    return errors


def fit(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Coefficients and leave-one-out errors; rows that differ only in threads or number of GPUs are left out together."""
    keys = ("device", "size", "channel_base", "channel_max")
    result: dict[str, Any] = {"rows": len(rows)}
    groups = np.array([" ".join(str(row[key]) for key in keys) for row in rows])
    features, seconds = np.array([row["time_features"] for row in rows]), np.array([row["seconds"] for row in rows])
    result["time"] = relative_fit(features, seconds).tolist()
    errors = leave_one_out(features, seconds, groups)
    result["time_error"] = [statistics.median(errors), max(errors)]
    measured = [i for i, row in enumerate(rows) if row["bytes"]]
    known = np.array([rows[i]["memory_features"] for i in measured])
    held = np.array([rows[i]["bytes"] for i in measured])
    features = known[:, 1:]
    # Weights, gradients and moments are counted; activations and the rest are fitted, weighted by the whole.
    result["memory"] = _rest_fit(features, held - known[:, 0], held).tolist()
    errors = []
    for i in range(len(held)):
        kept = groups[measured] != groups[measured][i]
        coefficients = _rest_fit(features[kept], (held - known[:, 0])[kept], held[kept])
        errors.append(float(abs((known[i, 0] + features[i] @ coefficients) / held[i] - 1)))
    result["memory_error"] = [statistics.median(errors), max(errors)]
    return result


def _rest_fit(features: np.ndarray, rest: np.ndarray, whole: np.ndarray) -> np.ndarray:
    scale = np.maximum((features / whole[:, None]).max(axis=0), 1e-30)
    return nnls(features / whole[:, None] / scale, np.maximum(rest, 0) / whole)[0] / scale


def worker(case: dict[str, Any]) -> None:
    """Measure one case in this process and print its row."""
    import torch

    from medgan import machine
    from medgan.training.calibrate import calibrate

    machine.keep_freed_memory()
    machine.set_precision(case["precision"])
    torch.set_num_threads(case["threads"])
    config = TrainConfig(
        batch=case["batch_gpu"],
        channel_base=case["channel_base"],
        channel_max=case["channel_max"],
        augment="fixed",
        augment_p=0.2,
        gamma=1.0,
        precision=case["precision"],
    )
    device = DEVICES[case["device"]]
    measured = calibrate(config, size=case["size"], channels=1, device=torch.device(device.kind), repeats=case["repeats"])
    row = row_of(
        config, device, case["size"], channels=1, batch_gpu=case["batch_gpu"], precision=case["precision"], threads=case["threads"]
    )
    print(json.dumps(row | {"seconds": measured.seconds_per_image, "bytes": measured.peak_bytes, "phases": measured.phases}))


def measure(cases: list[dict[str, Any]], budget: float) -> list[dict[str, Any]]:
    """Run the cases one after another until the budget is used, printing each row."""
    import torch

    rows, started = [], time.monotonic()
    for case in cases:
        if time.monotonic() - started > budget:
            print(f"left out after {budget:.0f} s: {case}", file=sys.stderr)
            continue
        env = os.environ | {"OMP_NUM_THREADS": str(case["threads"])}
        done = subprocess.run([sys.executable, __file__, "worker", json.dumps(case)], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"failed: {case}: {done.stderr.splitlines()[-1:]}", file=sys.stderr)
            continue
        row = json.loads(done.stdout) | {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "torch": torch.__version__}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "fit", "worker"))
    parser.add_argument("rows", nargs="?", help="fit: JSON lines of measure; worker: a case")
    parser.add_argument("--quick", action="store_true", help="two tiny cases")
    parser.add_argument("--device", default="", help="cpu, or the class of this machine's GPU; both where empty")
    parser.add_argument("--published", action="store_true", help="fit the official tables")
    args = parser.parse_args()
    if args.what == "worker":
        worker(json.loads(args.rows))
        return
    if args.what == "fit":
        rows = published_rows() if args.published else measured_rows(Path(args.rows))
        for kind in ("cpu", "cuda"):
            if some := [row for row in rows if DEVICES[row["device"]].kind == kind]:
                result = fit(some)
                print(json.dumps({"kind": kind, **result}))
                for row in some:
                    predicted = combine(row["time_features"], result["time"])
                    memory = combine(row["memory_features"], (1, *result["memory"]))
                    print(
                        f"  {row['device']:>6} {row['size']:>5} px base {row['channel_base']:>6} batch {row['batch_gpu']:>3}"
                        f" {row['precision']} threads {row['threads']}: {1000 * row['seconds']:9.1f} s/kimg, predicted {1000 * predicted:9.1f};"
                        f" {row['bytes'] / 1e9:6.2f} GB, predicted {memory / 1e9:6.2f}",
                        file=sys.stderr,
                    )
        return
    import torch

    from medgan.training.devices import nearest

    names = ("size", "channel_base", "channel_max", "batch_gpu")
    cpu = [
        dict(zip(names, case, strict=True))
        | {"device": "cpu", "precision": "fp32", "threads": threads, "repeats": 1 if case[1] >= 4096 else 3}
        for case in CPU_GRID
        for threads in (1, 2)
        # The heaviest ones with all threads only: they would take most of the time.
        if threads == 2 or case[1] < 8192
    ]
    cuda: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        name = nearest(facts.name, facts.total_memory / 1e9)[0].name
        cuda = [
            dict(zip(names, case, strict=True)) | {"device": name, "precision": precision, "threads": 1, "repeats": 5}
            for case in CUDA_GRID
            for precision in ("fp32", "tf32")
        ]
    if args.quick:
        cpu, cuda = cpu[-2:], cuda[:2]
    if args.device != "cpu":
        measure(cuda, 1200)
    if args.device in ("", "cpu"):
        measure(cpu, SECONDS_OF_CPU_GRID)


if __name__ == "__main__":
    main()
