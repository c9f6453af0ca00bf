"""`medgan diversity`: diversity and quality of synthetic images of single classes against sample size, as arXiv 2308.02505 asks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan import errors, runs
from medgan.commands.classes import describe, opened, prepared_in
from medgan.commands.samples import measure
from medgan.config import options_from, resolve
from medgan.errors import ConfigError, MedganError, Preempted
from medgan.experiments import diversity
from medgan.experiments.diversity import MEASURES, RESULTS, RUNS, ClassOf, DiversityConfig
from medgan.experiments.launchers import LaunchConfig, Run, Standing, standing, start

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset

log = logging.getLogger(__name__)

PATH = click.Path(path_type=Path, readable=False)


@click.group()
def command() -> None:
    """Diversity and quality of single classes against sample size: one network per class, synthetic : real = 1 : 1 at each size.

    Example: medgan diversity run --data xray/normal=normal.zip --data fashion/trouser=trouser.zip --out diversity
    """


@command.command("run")
@click.option(
    "--data",
    "words",
    multiple=True,
    required=True,
    metavar="MODALITY/CLASS=PATH",
    help="a class: its dataset, or a file of MedMNIST or Fashion-MNIST that holds it (MODALITY=PATH takes all its classes); repeatable",
)
@click.option("--out", type=PATH, required=True, envvar="MEDGAN_OUT", help="folder of the experiment; the same command goes on in it")
@click.option("--weights", type=PATH, envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
@click.option("--dry-run", is_flag=True, help="print the design with every command line, and stop")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF TRAIN]")
@options_from(DiversityConfig)
@options_from(LaunchConfig)
def run(words: tuple[str, ...], out: Path, weights: Path | None, dry_run: bool, options: tuple[str, ...], **flags: Any) -> None:
    """Train, generate and measure every class; what is done already is not done again.

    The design is written before anything runs. Options of `medgan train` stand behind two dashes and hold for every class. A class that
    fails is listed, and the others go on.

    Example: medgan diversity run --data xray=pneumoniamnist.npz --data fashion/trouser=fashion/ --out diversity -- --epochs 50
    """
    config, launch = resolve(DiversityConfig(), flags), resolve(LaunchConfig(), flags)
    given = diversity.classes_of(words)
    from medgan.metrics.sample_sizes import FEWEST_IN_PART, PARTS

    if not dry_run:
        runs.check_writable(out, "--out")
    check_metrics(config, weights)
    with prepared_in(out, dry_run=dry_run) as folder:
        classes = [found for one in given for found in opened(one, config, folder)]
        diversity.check_classes([one for one, _ in classes])
        described = [describe(one, data, config, out, weights, options) for one, data in classes]
    made = diversity.design(config, described, parts=PARTS, fewest_in_part=FEWEST_IN_PART)
    for note in made["notes"]:
        log.warning("%s", note)
    if dry_run:
        click.echo(json.dumps(made, indent=2))
        return
    diversity.write_design(made, out)
    jobs = start(runs_of(made, out), folder=out, config=launch, changed=tell)
    # Without --wait these go on when this command ends.
    going = {} if launch.wait else jobs
    failed = {}
    for (one, data), about in zip(classes, made["classes"], strict=True):
        if about["name"] not in going and (problem := finish(one, data, about, config, out, weights)):
            failed[one.title] = problem
    rows = table(made, out)
    show(rows)
    trained = all(row["training"] == "complete" for row in rows)
    after = "medgan diversity collect --out OUT" if trained else "the same command, which measures what has been trained"
    click.echo(json.dumps({"classes": rows, **({"jobs": going} if going else {}), "next": after}, indent=2))
    if failed:
        raise unfinished(failed)


def unfinished(failed: Mapping[str, MedganError]) -> MedganError:
    """One problem for all classes that did not finish, with the code of the first."""
    title, first = next(iter(failed.items()))
    kinds = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedganError)}
    others = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return kinds.get(first.code, MedganError)(
        f"{title}{others} did not finish: {first.message}", fix=first.fix or "the same command tries again", code=first.code
    )


def check_metrics(config: DiversityConfig, weights: Path | None) -> None:
    """Fail now, rather than after the trainings, where a metric is unknown or its weights are absent."""
    from medgan.metrics.evaluate import Evaluator
    from medgan.networks import NETWORKS

    evaluator = Evaluator(config.metrics, weights=weights, seed=config.seed)
    evaluator.check_generator(NETWORKS.get(config.family).styles)
    if fixed := [name for name, metric in evaluator.metrics.items() if metric.n_fake]:
        raise ConfigError(
            f"{fixed[0]} stands for one number of images, and here it varies", fix=f"--metrics {evaluator.metrics[fixed[0]].instead}"
        )


def runs_of(made: Mapping[str, Any], out: Path) -> list[Run]:
    """The trainings of a design."""
    return [
        # A stored design has no command lines: enough to look, not to start.
        Run(name=one["name"], folder=out / RUNS / one["key"], words=tuple(one.get("words", ())), gpus=int(one["training"]["gpus"]))
        for one in made["classes"]
    ]


def tell(now: Standing) -> None:
    """A line for people when a training starts or ends."""
    click.echo(f"{runs.utc_now()} {now.name} {now.state} {now.kimg} {now.problem}".rstrip(), err=True)


def problem_of(line: str) -> MedganError:
    """The problem behind an `ERROR CODE message; fix: ...` line of a training, or behind its other last words."""
    words, _, fix = line.partition("; fix: ")
    first, _, rest = words.removeprefix("ERROR ").partition(" ")
    return MedganError(rest, fix=fix, code=first) if first.startswith("E_") else MedganError(words or "the training failed", fix=fix)


def finish(
    one: ClassOf, data: Dataset, about: Mapping[str, Any], config: DiversityConfig, out: Path, weights: Path | None
) -> MedganError | None:
    """Generate and measure a class whose training is complete; what went wrong, or None."""
    problem_file = out / MEASURES / f"{one.key}.problem.json"
    problem: MedganError | None = None
    trained = standing(runs_of({"classes": [about]}, out)[0])
    if trained.state == "failed":
        problem = problem_of(trained.problem)
    elif trained.state in ("waiting", "stopped", "unfinished"):
        problem = MedganError(f"its training is {trained.state}, and no job is left of it", fix="the same command goes on", code="E_RUNS")
    elif trained.state != "complete":
        return None
    else:
        try:
            measure(data, about, config, out, weights)
        except Preempted:
            raise
        except MedganError as error:
            problem = error
    if problem:
        runs.write_json(problem_file, {"time": runs.utc_now(), "problem": problem.line})
    else:
        problem_file.unlink(missing_ok=True)
    return problem


@command.command("status")
@click.option("--out", type=PATH, required=True, envvar="MEDGAN_OUT", help="folder of the experiment")
def status(out: Path) -> None:
    """What has been trained and measured, and what failed."""
    rows = table(diversity.read_design(out), out)
    show(rows)
    click.echo(json.dumps({"classes": rows}, indent=2))


def table(made: Mapping[str, Any], out: Path) -> list[dict[str, Any]]:
    """One row for each class: its training, what is measured of it, and its problem."""
    rows = []
    for one, training in zip(made["classes"], map(standing, runs_of(made, out)), strict=True):
        sizes = runs.read_json(out / MEASURES / f"{one['key']}.json").get("sizes", [])
        problem = runs.read_json(out / MEASURES / f"{one['key']}.problem.json").get("problem", training.problem)
        done = len(sizes) == len(made["samples"])
        rows.append(
            {
                "class": one["name"],
                "images": one["images"],
                "training": training.state,
                "kimg": training.kimg,
                "measured": [size["percent"] for size in sizes],
                "state": "complete"
                if done
                else "failed"
                if problem
                else training.state
                if training.state != "complete"
                else "to be measured",
                "problem": problem,
            }
        )
    return rows


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The status table, for people."""
    width = max(len(row["class"]) for row in rows)
    click.echo(f"{'class':<{width}}  images  training    kimg            measured        problem", err=True)
    for row in rows:
        sizes = ",".join(f"{percent:g}" for percent in row["measured"]) or "-"
        click.echo(
            f"{row['class']:<{width}}  {row['images']:>6}  {row['training']:<10}  {row['kimg'] or '-':<14}  {sizes:<14}  {row['problem']}".rstrip(),
            err=True,
        )


@command.command("collect")
@click.option("--out", type=PATH, required=True, envvar="MEDGAN_OUT", help="folder of the experiment; results/ in it is written")
def collect(out: Path) -> None:
    """Tables (CSV, LaTeX), tests, the size from which each metric is stable, and a figure for each metric.

    What is not measured yet is named and left out.
    """
    from medgan.experiments import diversity_results

    made = diversity.read_design(out)
    found = {one["name"]: runs.read_json(out / MEASURES / f"{one['key']}.json") for one in made["classes"]}
    collected = diversity_results.results(made, found)
    for name in collected.missing:
        log.warning("%s is not measured", name)
    files = diversity_results.write(collected, made, out / RESULTS)
    significant = [row for row in collected.tests if row["significant"]]
    summary = {
        "files": [f"{RESULTS}/{name}" for name in files],
        "stability": collected.stability,
        "tests": len(collected.tests),
        "significant": len(significant),
        "missing": collected.missing,
    }
    click.echo(json.dumps(summary, indent=2))
