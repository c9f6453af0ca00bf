"""One of the processes that train together on this machine: `python -m medgan.worker FOLDER`, started by `medgan.launch`."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path

from medgan.cli import as_problem, fail
from medgan.launch import leave_error
from medgan.signals import preemptible


def main(folder: Path) -> None:
    """Do the work that a folder describes, as `medgan.commands.train` wrote it; a problem goes to the process that started us."""
    # Ctrl-C reaches every process of a terminal; the one that started us decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger("medgan").setLevel(logging.INFO)
    try:
        with preemptible():
            run(folder)
    except Exception as error:
        problem = as_problem(error)
        if not leave_error(problem):
            fail(problem)
        sys.exit(problem.exit_code)


def run(folder: Path) -> None:
    """Train as one rank."""
    from medgan import runs
    from medgan.commands.train import WORK, run_training
    from medgan.config import read_settings
    from medgan.data.dataset import open_dataset
    from medgan.training.config import TrainConfig

    work = json.loads((folder / WORK).read_text(encoding="utf-8"))
    places = {name: Path(work[name]) if work[name] else None for name in ("data", "out", "weights", "features")}
    assert places["data"]
    assert places["out"]
    data = open_dataset(places["data"], show_names=work["show_names"], cache=places["out"] / runs.DECODED)
    config = TrainConfig(**read_settings(folder / runs.CONFIG, TrainConfig))
    run_training(
        config,
        data,
        places["out"],
        weights=places["weights"],
        resume=work["resume"],
        explicit=work["explicit"],
        features=places["features"],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
