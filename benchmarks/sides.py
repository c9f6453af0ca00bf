"""Sides of a comparison in processes of their own: an allocator's setting belongs to a process, and so does another repository's package.

A side says whose networks (medgan's, or those of a checkout of the StyleGAN3 repository that the user brings), which operations (plain ones as defined, or medgan's own), which allocator and
precision. All sides have the same weights, images and latents, and stay alive while they take turns: `Worker.ask("Gmain")` runs one phase and gives its seconds and peak memory.

Of the checkout its Python package alone is used: imported by its name, its networks made by the constructor arguments and filled by the state names that STYLEGAN2-ADA.md
says. Nothing of it is opened, copied or kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rows

PHASES = ("Gmain", "Greg", "Dmain", "Dreg")
MODULE = "training.networks_stylegan2"


@dataclass(frozen=True, kw_only=True)
class What:
    """What a side computes, and how.

    Attributes:
        size: Image side in pixels.
        batch: Images at a time.
        channel_base: Of both networks.
        device: cpu or cuda.
        official: Path of the checkout; empty for medgan's networks.
        operations: `fast`, or `plain` as defined (medgan's networks only).
        allocator: `kept` with medgan's setting, `system` as it comes.
        precision: fp32, tf32 or bf16; fp16 for the official mixed precision.
        clock: wall, or cpu for the process's own seconds.
        p: Probability of ADA's transformations; beside the checkout's networks runs medgan's pipeline, with the operations as defined.
    """

    size: int
    batch: int
    channel_base: int
    device: str = "cpu"
    official: str = ""
    operations: str = "fast"
    allocator: str = "kept"
    precision: str = "fp32"
    clock: str = "wall"
    p: float = 0.0


class Worker:
    """A side, running; several start at the same time.

    Args:
        what: The side.
    """

    def __init__(self, what: What) -> None:
        env = os.environ | ({"MEDGAN_MALLOC": "system"} if what.allocator == "system" else {})
        words = [sys.executable, str(Path(__file__)), json.dumps(asdict(what))]
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.communicate()

    def read(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            SystemExit: The side has ended; it said why.
        """
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(self.process.wait() or 1)
        return json.loads(line)

    def ask(self, task: str, *, peak: bool = False) -> dict[str, Any]:
        """Run one of PHASES, `sample`, or `outputs PATH`; `peak` measures memory too, for which the process gives back what it keeps."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"task": task, "peak": peak}) + "\n")
        self.process.stdin.flush()
        return self.read()


def in_turn(workers: Mapping[str, Worker], task: str, *, repeats: int) -> dict[str, rows.Side]:
    """`rows.in_turn` over processes: a first turn that measures memory and does not count, then all sides again and again."""
    measured = {name: rows.Side() for name in workers}
    for turn in range(1 + repeats):
        for name, worker in workers.items():
            answer, side = worker.ask(task, peak=turn == 0), measured[name]
            if turn == 0:
                side.peak_bytes, side.device_bytes = answer["peak_bytes"], answer["device_bytes"]
            else:
                side.seconds.append(answer["seconds"])
    return measured


def apart(workers: Mapping[str, Worker], folder: Path) -> dict[str, dict[str, float]]:
    """How far the images, logits and gradients of each side are from those of the first, relative to the largest of the first."""
    import numpy as np

    found: dict[str, dict[str, float]] = {}
    first: dict[str, Any] = {}
    for name, worker in workers.items():
        file = folder / f"{len(found)}.npz"
        worker.ask(f"outputs {file}")
        with np.load(file) as stored:
            values = dict(stored)
        first = first or values
        found[name] = {key: rows.rounded(float(abs(values[key] - first[key]).max() / abs(first[key]).max()), 2) for key in first}
    return found


def check_official(path: str) -> None:
    """Prove that a checkout may lie there, before any side starts.

    Raises:
        SystemExit: There is none.
    """
    if not Path(path, *MODULE.split(".")).with_suffix(".py").is_file():
        raise SystemExit(f"--official {path}: there is no {MODULE}; give the folder of a checkout of the StyleGAN3 repository")


def official_networks(what: What, G_arguments: Mapping[str, Any], D_arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """Generator and discriminator of the checkout, new.

    Raises:
        SystemExit: It cannot be imported.
    """
    import importlib

    sys.path.insert(0, str(Path(what.official).absolute()))
    try:
        module = importlib.import_module(MODULE)
    except ImportError as error:
        raise SystemExit(f"--official {what.official}: {MODULE} cannot be imported: {error}") from None
    half = what.precision == "fp16"
    both = {"num_fp16_res": 4 if half else 0, "conv_clamp": 256 if half else None}
    shared = {name: G_arguments[name] for name in ("c_dim", "img_resolution", "img_channels", "channel_base", "channel_max")} | both
    mapping = {"num_layers": G_arguments["mapping_layers"]}
    G = module.Generator(z_dim=G_arguments["z_dim"], w_dim=G_arguments["w_dim"], mapping_kwargs=mapping, **shared)
    D = module.Discriminator(epilogue_kwargs={"mbstd_group_size": D_arguments["mbstd_group_size"]}, **shared)
    return G, D


def tasks(what: What) -> dict[str, Callable[[str], None]]:
    """What a side can be asked for."""
    import numpy as np
    import torch
    from phases import Phases
    from plain import plain_operations

    from medgan import machine
    from medgan.training.state import network_arguments

    # Leaves the allocator alone where the environment says so.
    machine.keep_freed_memory()
    machine.set_precision("fp32" if what.precision == "fp16" else what.precision)
    shape: dict[str, Any] = {"size": what.size, "batch": what.batch, "channel_base": what.channel_base, "device": what.device}
    phases = Phases(**shape, p=what.p, precision="bf16" if what.precision == "bf16" else "fp32")
    if what.official:
        arguments = network_arguments(phases.config, size=what.size, channels=1, c_dim=0)
        G, D = (network.to(what.device).train() for network in official_networks(what, *arguments))
        G.load_state_dict(phases.state.G.state_dict())
        D.load_state_dict(phases.state.D.state_dict())
        phases.take(G, D)
    G_eval = phases.state.G_ema
    if what.official:
        G_eval, _ = official_networks(what, *arguments)
        G_eval.load_state_dict(phases.state.G.state_dict())
        G_eval = G_eval.to(what.device).eval().requires_grad_(False)
    operations = plain_operations if what.operations == "plain" or what.official else contextlib.nullcontext

    def images() -> torch.Tensor:
        with torch.inference_mode(), operations():
            return G_eval(phases.z, None, noise_mode="const")

    def run(phase: str) -> None:
        with operations():
            phases.run(phase)

    def outputs(file: str) -> None:
        phases.step.noise_mode = "const"
        with operations():
            gradients = {phase: phases.gradients(phase).float().cpu().numpy() for phase in PHASES}
            with torch.no_grad():
                logits = phases.state.D(phases.real, None).cpu().numpy()
        phases.step.noise_mode = "random"
        np.savez(file, images=images().float().cpu().numpy(), logits=logits, **gradients)

    return {**{phase: lambda _, phase=phase: run(phase) for phase in PHASES}, "sample": lambda _: (images(), None)[1], "outputs": outputs}


def serve(what: What) -> None:
    """Answer the questions on stdin, a JSON line each, until they end. What others print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    clock = time.process_time if what.clock == "cpu" else time.perf_counter
    known = tasks(what)

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    for line in sys.stdin:
        question = json.loads(line)
        name, _, argument = question["task"].partition(" ")
        if question["peak"]:
            rows.reset_peak(what.device)
        rows.wait(what.device)
        started = clock()
        known[name](argument)
        rows.wait(what.device)
        seconds = clock() - started
        host, device = rows.peak(what.device)
        say({"seconds": seconds, "peak_bytes": host, "device_bytes": device})


if __name__ == "__main__":
    serve(What(**json.loads(sys.argv[1])))
