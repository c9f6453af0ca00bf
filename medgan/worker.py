"""One of the processes that train or measure together on this machine: `python -m medgan.worker FOLDER`, started by `medgan.launch`."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from medgan.cli import as_problem, fail
from medgan.launch import leave_error
from medgan.signals import preemptible


def main(folder: Path) -> None:
    """Do the work that a folder describes, as the command wrote it; a problem goes to the process that started us."""
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
    """Do the share of one rank."""
    from medgan.commands.training_run import WORK

    work = json.loads((folder / WORK).read_text(encoding="utf-8"))
    {"train": train, "evaluate": evaluate}[work.pop("stage")](folder, work)


def train(folder: Path, work: dict[str, Any]) -> None:
    """Train as one rank."""
    from medgan import runs
    from medgan.commands.training_run import run_training
    from medgan.config import read_settings
    from medgan.data.dataset import open_dataset
    from medgan.training.config import TrainConfig

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
        mlflow=work["mlflow"],
    )


def evaluate(folder: Path, work: dict[str, Any]) -> None:
    """Measure as one rank; rank 0 leaves the result in the folder."""
    from medgan import runs
    from medgan.commands.evaluate import measured
    from medgan.config import read_settings
    from medgan.metrics.config import EvaluateConfig

    places = {name: Path(path) if path else None for name, path in work.items()}
    config = EvaluateConfig(**read_settings(folder / runs.CONFIG, EvaluateConfig))
    if result := measured(config, **places):  # type: ignore[arg-type]
        runs.write_json(folder / runs.METRICS, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
