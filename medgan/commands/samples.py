"""The synthetic images of one class and their figures at every sample size: the part of `medgan diversity` that follows a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgan import runs
from medgan.errors import Preempted
from medgan.experiments.diversity import CACHE, MEASURES, RUNS, SYNTHETIC, DiversityConfig, read_design

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.metrics.evaluate import Evaluator
    from medgan.progress import Step


def measure(data: Dataset, about: Mapping[str, Any], config: DiversityConfig, out: Path, weights: Path | None) -> None:
    """A class's synthetic images, and every metric at every size; sizes that are measured already stay.

    Raises:
        Preempted: Told to stop; what is measured is kept.
    """
    from medgan.data.dataset import open_dataset
    from medgan.metrics.evaluate import Evaluator
    from medgan.metrics.sample_sizes import OneSet, measured
    from medgan.networks.bundle import read_metadata
    from medgan.progress import bar
    from medgan.signals import stop_asked, stoppable

    bundle, images = out / RUNS / about["key"] / runs.BUNDLE, out / SYNTHETIC / about["key"]
    path = out / MEASURES / f"{about['key']}.json"
    of = {"model": read_metadata(bundle)["medgan"]["model_sha256"], "dataset": about["dataset"]}
    found = runs.read_json(path)
    if found.get("of") != of:
        found = {"of": of, "sizes": []}
    done = [size["percent"] for size in found["sizes"]]
    todo = [sample for sample in read_design(out)["samples"] if sample["percent"] not in done]
    if not todo:
        return
    generate_class(bundle, images, len(data), of["model"])
    settings = {"pairs": config.pairs, "intervals": True}
    with stop_asked() as asked:
        stop = Preempted("stopped while measuring; what is measured is kept")
        evaluator = Evaluator(config.metrics, weights=weights, cache=out / CACHE, batch=config.batch, seed=config.seed, settings=settings)
        sets: list[OneSet] = []
        for kind, some in (("real", data), ("synthetic", open_dataset(images / "synthetic.zip", any_size=True))):
            with bar(f"features of {kind} images") as step:
                sets.append(OneSet(some, evaluator.rows(some, step=stoppable(step, asked, stop)), config.seed + len(sets)))
        for sample in todo:
            with bar(f"{about['name']} {sample['percent']:g} %") as step:
                entry = measured(
                    evaluator.metrics,
                    real=sets[0],
                    fake=sets[1],
                    n=sample["images"][about["name"]],
                    in_part=sample["in_part"],
                    pairs=config.pairs,
                    seed=config.seed,
                    uncertainty=stoppable(step, asked, stop),
                )
                entry["metrics"] |= of_generator(
                    evaluator, bundle, sample["images"][about["name"]], config.seed, stoppable(step, asked, stop)
                )
            found["sizes"].append({"percent": sample["percent"], **entry})
            runs.write_json(path, found)
            if asked():
                raise stop


def of_generator(evaluator: Evaluator, bundle: Path, count: int, seed: int, step: Step) -> dict[str, Any]:
    """The metrics of a generator over `count` pairs of near images."""
    metrics = {name: metric for name, metric in evaluator.metrics.items() if metric.needs == "generator"}
    if not metrics:
        return {}
    from medgan import machine
    from medgan.networks.bundle import read_bundle
    from medgan.ranks import Ranks
    from medgan.sampling.steps import stepped

    device = machine.device()
    walk = stepped(read_bundle(bundle)[0].to(device), seed, device=device)
    # Called otherwise than the metrics of two sets: see `medgan.metrics.metric.Metric`.
    return {name: metric(walk=walk, count=count, ranks=Ranks(), step=step) for name, metric in metrics.items()}  # type: ignore[call-arg]


def generate_class(bundle: Path, out: Path, count: int, model: str) -> None:
    """As many images as the class has, of seeds 0 ... count - 1, unless this network's are there."""
    from medgan.commands.generate import GenerateConfig, generate

    try:
        made = json.loads((out / runs.PROVENANCE).read_text(encoding="utf-8"))
        there = made["inputs"]["model"] == model and made["settings"]["seeds"] == f"0-{count - 1}"
    except (OSError, ValueError, KeyError):
        there = False
    if not there:
        generate(GenerateConfig(seeds=f"0-{count - 1}", format="zip"), bundle, out)
