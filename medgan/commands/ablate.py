"""`medgan ablate`: designs of many trainings, from the runs to tables, tests and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import medgan
from medgan import runs
from medgan.commands.train import preset_option
from medgan.config import check_settings, options_from, parse_settings, resolve, setting, to_json, words_of
from medgan.errors import ConfigError, InputError, MedganError, Preempted, ResumeError
from medgan.experiments.ablation import DESIGNS, EXTRA, MAIN, Design, Experiment, arms, read_design
from medgan.experiments.launchers import ATTEMPTS, LaunchConfig, Run, Standing, check_names, standing, start
from medgan.experiments.plan import PLAN, RUNS, Plan, PlannedData, differences, plan_of, runs_of
from medgan.training.config import TrainConfig, preset
from medgan.weights import NETWORKS

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset

FOLDER = click.Path(path_type=Path, readable=False)
out_option = click.option(
    "--out", type=FOLDER, required=True, envvar="MEDGAN_OUT", help="folder of the ablation; the same command again goes on in it"
)


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What `medgan ablate run` changes in a design."""

    repeats: int = setting(0, "runs of each experiment; 0 is the design's own (5 in the paper's)")
    seed: int = setting(0, "seed of the first run; each run has the next one")
    pretrained: str = setting(
        "", "networks that pretrained experiments start from, as of train; ffhq takes the one of the images' size", metavar="NETWORK"
    )

    def __post_init__(self) -> None:
        for name in ("repeats", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name} {getattr(self, name)} is less than 0")


@click.group()
def command() -> None:
    """Ablations: experiments that differ in some settings, repeated, compared by tests planned before anything runs.

    Example: medgan ablate run --design paper-2210.03786 --data liver.zip --pretrained ffhq-512 --out ablation
    """


@command.command("run")
@click.option("--data", type=FOLDER, required=True, envvar="MEDGAN_DATA", help="dataset of the experiments")
@out_option
@click.option(
    "--design",
    "design_name",
    default="paper-2210.03786",
    show_default=True,
    envvar="MEDGAN_DESIGN",
    help=f"{', '.join(DESIGNS)}, or a JSON file",
)
@click.option("--extra-data", type=FOLDER, envvar="MEDGAN_EXTRA_DATA", help="the enlarged dataset, for experiments on one")
@click.option("--also", multiple=True, metavar="NAME=DATA", help="a further dataset, for experiments on such; may be given several times")
@preset_option("of train, instead of the design's")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="a setting of train for all runs, e.g. kimg=1000; several times"
)
@click.option("--weights", type=FOLDER, envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
@click.option(
    "--mlflow", default="", metavar="URI", envvar="MEDGAN_MLFLOW", help="MLflow server or folder that every run's curves go to, as of train"
)
@click.option("--only", default="", metavar="A,B", envvar="MEDGAN_ONLY", help="start these runs alone, by their names or places from 1")
@click.option("--dry-run", is_flag=True, help="print the design and the command line of each run, and stop")
@options_from(AblateConfig)
@options_from(LaunchConfig)
def run_command(
    data: Path,
    out: Path,
    design_name: str,
    extra_data: Path | None,
    also: tuple[str, ...],
    preset_name: str,
    changes: tuple[str, ...],
    weights: Path | None,
    mlflow: str,
    only: str,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Train every run of a design, on this machine or on Slurm; a failed run is started again from its state.

    The design (runs, seeds, tests, the smallest p they can reach) is written to design.json before anything runs.
    """
    config, launch = resolve(AblateConfig(), flags), resolve(LaunchConfig(), flags)
    design = _changed(read_design(design_name, settings=list(to_json(TrainConfig()))), config, preset_name, changes)
    sets = {MAIN: data, **({EXTRA: extra_data} if extra_data else {}), **_further(also)}
    names = _chosen(_names(design, sets), only)
    plan, all_runs = _planned(design, sets, out, pretrained=config.pretrained, weights=weights, mlflow=mlflow, dry_run=dry_run)
    chosen = [run for run in all_runs if run.name in names]
    for note in plan.notes:
        click.echo(f"NOTE {note}", err=True)
    if dry_run:
        click.echo(json.dumps({**plan.to_json(), "commands": [run.command for run in chosen]}, indent=2))
        return
    _write_plan(plan, out)
    _started(chosen, out, launch)


def _changed(design: Design, config: AblateConfig, preset_name: str, changes: Sequence[str]) -> Design:
    """A design with what the command line says otherwise."""
    common = parse_settings(changes, TrainConfig)
    varied = {"seed", "pretrained"}.union(*(experiment.settings for experiment in design.experiments))
    if clash := sorted(set(common) & varied):
        raise ConfigError(
            f"--set {', '.join(clash)}: these differ between the runs of the design", fix="leave them out, or write a design file"
        )
    return replace(
        design,
        preset=preset_name or design.preset,
        settings={**design.settings, **common},
        repeats=config.repeats or design.repeats,
        further_repeats=config.repeats or design.further_repeats,
        seed=config.seed or design.seed,
    )


def _further(also: Sequence[str]) -> dict[str, Path]:
    pairs = [word.partition("=") for word in also]
    if any(not name or not path for name, _, path in pairs):
        raise ConfigError("--also is not NAME=DATA", fix="--also acdc=ACDC.zip")
    if len({name for name, _, _ in pairs} - {MAIN, EXTRA}) < len(pairs):
        raise ConfigError("--also: further sets need names of their own", fix="--also acdc=ACDC.zip")
    return {name: Path(path) for name, _, path in pairs}


def _arms(design: Design, sets: Mapping[str, Path]) -> list[tuple[Experiment, str, int]]:
    return arms(design, extra=EXTRA in sets, further=[name for name in sets if name not in (MAIN, EXTRA)])


def _names(design: Design, sets: Mapping[str, Path]) -> list[str]:
    """Of all runs, in the order of the design."""
    names = [run.name for run in runs_of(design, _arms(design, sets))]
    check_names(names)
    return names


def _planned(
    design: Design, sets: Mapping[str, Path], out: Path, *, pretrained: str, weights: Path | None, mlflow: str, dry_run: bool
) -> tuple[Plan, list[Run]]:
    """The plan and its runs; everything that can fail before a step of training fails here."""
    from medgan.commands.transfer import starting_point
    from medgan.data.dataset import open_dataset
    from medgan.progress import bar

    for name, path in sets.items():
        if not path.exists():
            raise InputError(f"the dataset of {_flag(name)} does not exist", fix="medgan prepare SCANS DATA.zip makes one")
    chosen = _arms(design, sets)
    opened: dict[str, Dataset] = {name: open_dataset(path, cache=None if dry_run else out / runs.DECODED) for name, path in sets.items()}
    settings, configs = {}, {}
    for experiment, name, _ in chosen:
        given = check_settings({**design.settings, **experiment.settings}, TrainConfig, called="--design")
        size = opened[name].resolution
        if experiment.pretrained:
            if not pretrained:
                raise ConfigError(f"experiment {experiment.name} starts from pretrained networks", fix="--pretrained ffhq-512, or a bundle")
            given["pretrained"] = _network(pretrained, size)
        config = resolve(preset(design.preset, size=size, gpus=given.get("gpus", 1)), given)
        config, _ = starting_point(config, opened[name], out, folder=weights, resume="new", explicit=set(given))
        settings[experiment.name], configs[experiment.name] = given, config
    metric = _metric(configs)
    if not dry_run:
        _check_weights(configs, weights)
        runs.check_writable(out, "--out")
        for data in opened.values():
            # The facts alone, so that the next call, or the next task of an array, knows them.
            with bar("checking images") as step:
                data.check(out / runs.DECODED, most_bytes=0, step=step)
    described = [
        PlannedData(
            name=name, identity=data.identity, images=len(data), resolution=data.resolution, recipe=str((data.recipe or {}).get("name", ""))
        )
        for name, data in opened.items()
    ]
    plan = plan_of(design, chosen, metric=metric, data=described, settings={name: to_json(config) for name, config in configs.items()})
    where = {experiment.name: sets[name] for experiment, name, _ in chosen}
    all_runs = []
    for one in plan.runs:
        folder = out / RUNS / one.name
        words = ["train", "--data", str(where[one.experiment]), "--out", str(folder)]
        words += ["--preset", design.preset] if design.preset else []
        words += words_of({**settings[one.experiment], "seed": one.seed}, TrainConfig)
        words += ["--weights", str(weights)] if weights else []
        words += ["--mlflow", mlflow] if mlflow else []
        all_runs.append(Run(name=one.name, folder=folder, words=tuple(words), gpus=configs[one.experiment].gpus))
    return plan, all_runs


def _flag(name: str) -> str:
    return {MAIN: "--data", EXTRA: "--extra-data"}.get(name, f"--also {name}")


def _network(name: str, size: int) -> str:
    """`ffhq` is the one of the images' size, `ffhq512` is `ffhq-512`; anything else stays."""
    match = re.fullmatch(r"ffhq-?(\d*)", name)
    if not match:
        return name
    found = f"ffhq-{match[1] or size}"
    if found not in NETWORKS:
        raise ConfigError(
            f"--pretrained {name}: there is no {found}", fix=f"one of {', '.join(NETWORKS)}, a pickle, a bundle or a run folder"
        )
    return found


def _metric(configs: Mapping[str, TrainConfig]) -> str:
    """The one metric that all runs are compared by."""
    first = {config.metrics[0] if config.metrics else "" for config in configs.values()}
    if len(first) > 1 or "" in first:
        raise ConfigError("the runs of a design are compared by one metric", fix="--set metrics=fid50k_full")
    return first.pop()


def _check_weights(configs: Mapping[str, TrainConfig], weights: Path | None) -> None:
    """The metrics' weights, looked for once here instead of failing in every run."""
    from medgan.metrics.evaluate import Evaluator

    for metrics in {config.metrics for config in configs.values()}:
        Evaluator(metrics, weights=weights, device="cpu")


def _write_plan(plan: Plan, out: Path) -> None:
    """design.json, before anything runs; where there is one already, it must say the same."""
    if (out / PLAN).exists() or (out / RUNS).exists():
        there, here = _read_plan(out).to_json(), plan.to_json()
        # Notes are words about the rest.
        found = differences({**there, "notes": []}, {**here, "notes": []})
        if found:
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            raise ResumeError(f"--out holds another design: {'; '.join(found[:8])}{more}", fix="another --out, or the design of this one")
        return
    about = {"medgan": medgan.__version__, "commit": runs.commit(), "written": runs.utc_now()}
    runs.write_json(out / PLAN, {**plan.to_json(), **about})


def _read_plan(out: Path) -> Plan:
    if not out.is_dir():
        raise InputError("--out names no folder", fix="medgan ablate run makes one")
    try:
        return Plan.from_json(json.loads((out / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        raise ResumeError(
            f"--out holds no {PLAN} of an ablation that this version reads", fix="the folder of `medgan ablate run`"
        ) from None


def _chosen(names: Sequence[str], only: str) -> set[str]:
    """The runs that `--only` names, all without it."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    if not words:
        return set(names)
    named = {name: name for name in names} | {str(place): name for place, name in enumerate(names, start=1)}
    if unknown := [word for word in words if word not in named]:
        raise ConfigError(f"--only {', '.join(unknown)}: no such run", fix=f"1 to {len(names)}, or names as of --dry-run")
    return {named[word] for word in words}


def _started(chosen: Sequence[Run], out: Path, launch: LaunchConfig) -> None:
    jobs = start(chosen, folder=out, config=launch, changed=_tell)
    end = [standing(run) for run in chosen]
    if launch.launcher == "slurm" and not launch.wait:
        click.echo(json.dumps({**_summary(end), "jobs": jobs, "next": "medgan ablate status --out OUT"}))
        return
    click.echo(json.dumps({**_summary(end), "next": "medgan ablate collect --out OUT"}))
    # A job that was cancelled before it began leaves its run waiting.
    failed = [one for one in end if one.state in ("failed", "stopped", "unfinished", "waiting")]
    if failed:
        _raise_failed(failed, chosen, len(end))


def _tell(one: Standing) -> None:
    figures = f" kimg={one.kimg} best={one.best}" if one.best else ""
    click.echo(f"{runs.utc_now()} RUN {one.name} {one.state}{figures}{' ' + one.problem if one.problem else ''}", err=True)


def _raise_failed(failed: Sequence[Standing], chosen: Sequence[Run], of: int) -> None:
    """End with the exit code of the first run that failed."""
    folder = next(run.folder for run in chosen if run.name == failed[0].name)
    attempts = runs.read_json_lines(folder / ATTEMPTS)
    problem = MedganError(
        f"{len(failed)} of {of} runs have not ended well; {failed[0].name}: {failed[0].problem or failed[0].state}",
        fix="the same command tries them again",
        code="E_RUNS",
    )
    code = attempts[-1]["exit_code"] if attempts else Preempted.exit_code
    problem.exit_code = code if code > 0 else 128 - code
    raise problem


def _summary(end: Sequence[Standing]) -> dict[str, Any]:
    states = [one.state for one in end]
    return {"runs": len(end), **{state: states.count(state) for state in dict.fromkeys(states)}}


@command.command("status")
@out_option
@click.option("--json", "as_json", is_flag=True, help="as one JSON object")
def status_command(out: Path, as_json: bool) -> None:
    """What each run has come to: waiting, running, complete, partial, stopped, failed, unfinished."""
    plan = _read_plan(out)
    found = [standing(Run(name=one.name, folder=out / RUNS / one.name, words=())) for one in plan.runs]
    if as_json:
        click.echo(json.dumps({**_summary(found), "design": plan.design, "each": [vars(one) for one in found]}, indent=2))
        return
    rows = [
        ("run", "state", "kimg", f"best {plan.metric}", "starts"),
        *((one.name, one.state, one.kimg, one.best, str(one.attempts)) for one in found),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), err=True)
    for one in found:
        if one.problem:
            click.echo(f"{one.name}: {one.problem}", err=True)


@command.command("collect")
@out_option
@click.option("--data", type=FOLDER, envvar="MEDGAN_DATA", help="dataset of the experiments, for --measure and real images")
@click.option("--also", multiple=True, metavar="NAME=DATA", help="as of run, for the rows of real images of further datasets")
@click.option(
    "--include-real-examples", is_flag=True, envvar="MEDGAN_INCLUDE_REAL_EXAMPLES", help="put real images above the synthetic ones"
)
@click.option(
    "--measure", is_flag=True, help="first measure networks anew against --data, where the design compares runs on different sets so"
)
@click.option("--weights", type=FOLDER, envvar="MEDGAN_WEIGHTS", help="folder with pretrained files, for --measure")
@click.option("--images", type=click.IntRange(0, 32), default=8, show_default=True, help="images in a row; 0 makes no rows")
def collect_command(
    out: Path, data: Path | None, also: tuple[str, ...], include_real_examples: bool, measure: bool, weights: Path | None, images: int
) -> None:
    """Tables, tests and figures of the runs that are complete, in OUT/results.

    Best value of each run, mean and SD of each experiment, improvement on the first one, the planned tests with Holm's correction, as CSV, LaTeX
    and JSON; losses with bars of one SD; rows of images of each experiment's best network.
    """
    from medgan.commands import ablation_results

    if (include_real_examples or measure) and not data:
        raise ConfigError(f"{'--measure' if measure else '--include-real-examples'} needs the images", fix="--data DATA.zip")
    plan = _read_plan(out)
    if measure and data:
        ablation_results.measure(plan, out, data=data, weights=weights)
    sets = {MAIN: data, **_further(also)} if data and include_real_examples else {}
    click.echo(json.dumps(ablation_results.collect(plan, out, sets=sets, images=images), indent=2))
