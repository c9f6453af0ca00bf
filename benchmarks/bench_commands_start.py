"""How long from the start of a process to its first answer, and of a training to its first step? JSON lines, a minute.

    python benchmarks/bench_commands_start.py [--size 64] [--preset demo] [--repeats 5]

Every turn starts a new process: `medgan --help`, an import of torch alone (the floor of whatever computes), a training on 16 images until its first step is done (by its own clock from the
process's start on, without metrics). The first turn is a warm-up: files are then in the system's cache. Peak memory is that of the process started. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rows import in_turn, rounded, row, show

FIRST_STEP = "--first-step"


def train_one_step(data: Path, out: Path, preset_name: str) -> None:
    """Run until the first step is done, and print the seconds since the process was started."""
    from dataclasses import replace

    from medgan import machine
    from medgan.data.dataset import open_dataset
    from medgan.training.config import preset
    from medgan.training.loop import train

    machine.keep_freed_memory()
    dataset = open_dataset(data)
    config = replace(preset(preset_name, size=dataset.resolution), metrics=())
    done: list[float] = []

    def stop() -> bool:
        # Asked before each step.
        if len(done) == 1:
            print(machine.seconds_alive(), flush=True)
            os._exit(0)
        done.append(0.0)
        return False

    train(config, dataset, out, resume="new", device=machine.device(), stop=stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    parser.add_argument(FIRST_STEP, nargs=2, metavar=("DATA", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_step:
        data, out = map(Path, args.first_step)
        train_one_step(data, out, args.preset)
        return
    warm_ups = 1
    if args.tiny:
        args.size, args.repeats, warm_ups = 32, 1, 0
    random = np.random.default_rng(0)

    def run(*words: str) -> tuple[str, int]:
        """What a new process prints, and the most memory it held, in bytes."""
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(process.returncode)
        return printed, 1024 * usage.ru_maxrss

    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        for i in range(16):
            Image.fromarray(random.integers(0, 256, (args.size, args.size), dtype=np.uint8)).save(data / f"{i}.png")

        step = (__file__, "--preset", args.preset, FIRST_STEP, str(data), str(Path(place) / "run"))
        sides = in_turn(
            {
                "medgan --help": lambda: run("-m", "medgan", "--help"),
                "import torch": lambda: run("-c", "import torch"),
                f"training, first step, {args.size} px, preset {args.preset}": lambda: run(*step),
            },
            repeats=args.repeats,
            warm_ups=warm_ups,
        )
    for name, side in sides.items():
        seconds = [float(printed) for printed, _ in side.results] if name.startswith("training") else side.seconds
        peak_bytes = max(held for _, held in side.results)
        show(row(f"start: {name}", statistics.median(seconds), "s", all=[rounded(value) for value in seconds], peak_bytes=peak_bytes))


if __name__ == "__main__":
    main()
