"""`medgan readers`: visual Turing tests, from images to the tables of a paper."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan.config import option_for, options_from, resolve, setting, to_json
from medgan.errors import ConfigError

if TYPE_CHECKING:
    from medgan.readers.answers import Answer

log = logging.getLogger(__name__)

PATH = click.Path(path_type=Path, readable=False)


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Settings of a reader study."""

    design: str = setting("multi-model", "multi-model, clinician, or a JSON file")
    title: str = setting("Which images are real?", "what readers see above the study; must not name a model")
    readers: int = setting(5, "readers planned, for the estimate of power", label="Readers planned")
    dither: str = setting(
        "auto",
        "noise of so many grey levels on all images, so that gaps of histograms do not tell which are real; auto: 1.5, more where a narrow window left gaps; 0: none",
        metavar="LEVELS",
    )
    seed: int = setting(0, "draws which images are shown; ids and noise are never drawn from it")

    def __post_init__(self) -> None:
        if self.readers < 1:
            raise ConfigError(f"--readers {self.readers} is less than 1", fix="--readers 5")
        if self.dither != "auto" and not (re.fullmatch(r"\d{1,2}(\.\d*)?", self.dither) and float(self.dither) <= 16):
            raise ConfigError(f"--dither {self.dither} is not between 0 and 16 grey levels", fix="--dither auto, or 1.5")
        if not self.title.strip():
            raise ConfigError("--title is empty")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Settings of the web application."""

    database: str = setting("", "sqlite:///PATH or postgresql://USER@HOST/NAME; without it STUDY/answers.sqlite")
    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8000, "port to listen on; 0 takes a free one")
    url: str = setting("", "what readers type, where it is another address: that of a reverse proxy")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} is not between 0 and 65535", fix="--port 8000")


@click.group()
def command() -> None:
    """Visual Turing tests: can clinicians tell synthetic images from real ones?

    Example: medgan readers make --design clinician --real liver.zip --fake stylegan2=run/synthetic/synthetic.zip --out study
    """


@command.command("make")
@click.option(
    "--real",
    type=PATH,
    required=True,
    envvar="MEDGAN_REAL",
    help="the dataset that was trained on, with REAL.held-out.zip beside it: readers are shown images of those patients alone",
)
@click.option("--train", type=PATH, envvar="MEDGAN_TRAIN", help="the dataset that was trained on, where --real is a set of other patients")
@click.option(
    "--fake", "words", multiple=True, required=True, metavar="NAME=PATH", help="a model's synthetic images: zip or folder; repeatable"
)
@click.option("--out", type=PATH, required=True, envvar="MEDGAN_OUT", help="folder of the study; must not exist, or be empty")
@click.option("--offline", is_flag=True, help="write OUT/offline too: a folder that opens by double click, without a server")
@click.option("--dry-run", is_flag=True, help="print design, settings and estimate of power, and stop")
@options_from(StudyConfig)
def make(real: Path, train: Path | None, words: tuple[str, ...], out: Path, offline: bool, dry_run: bool, **flags: Any) -> None:
    """Draw a study: pictures without a trace of their origin, and a key that stays with its owner.

    OUT/key.json is the truth: readers must never see it. Everything else in OUT may be shown.

    Example: medgan readers make --real liver.zip --fake none=none.zip --fake ada=ada.zip --out study
    """
    config = resolve(StudyConfig(), flags)
    from medgan.readers.design import find_design, needed
    from medgan.readers.power import as_json, lines, power

    design = find_design(config.design)
    fakes = _named(words, "--fake")
    real_count, counts = needed(design, list(fakes))
    estimate = power(design, models=len(fakes), readers=config.readers)
    told = {"design": asdict(design), "real": real_count, "fake": counts, "power": as_json(estimate)}
    for line in lines(estimate, design):
        click.echo(line, err=True)
    if dry_run:
        click.echo(json.dumps({"settings": to_json(config), **told}, indent=2))
        return
    import numpy as np

    from medgan import runs
    from medgan.commands.study_images import choose, open_sets
    from medgan.progress import bar
    from medgan.readers.design import draw
    from medgan.readers.pictures import needed_dither
    from medgan.readers.study import check_new, write_study

    started = runs.utc_now()
    check_new(out)
    runs.check_writable(out.absolute().parent, "--out")
    sets = open_sets(real, train, fakes)
    rng = np.random.default_rng(config.seed)
    with bar("near-copies") as step:
        chosen = choose(sets, real_count, counts, rng, step)
    dither = (
        needed_dither(image for number in chosen.real for image in sets.real.images([number]))
        if config.dither == "auto"
        else float(config.dither)
    )
    notes = [*sets.notes, f"Near-copies left out: {chosen.rule}.", f"Noise on all images: {dither:.3g} grey levels."]
    inputs = {
        name: runs.sha256(one.path) for name, one in {"real": sets.real, "train": sets.train, **sets.fakes}.items() if one.path.is_file()
    }
    study = write_study(
        out,
        title=config.title,
        design=design,
        parts=draw(design, chosen.real, chosen.fakes, rng),
        pixels=lambda model, number: (sets.fakes[model] if model else sets.real).images([number])[0],
        dither=dither,
        notes={
            "made": runs.provenance("readers make", to_json(config) | {"design": design.name}, inputs, started=started),
            "left_out": chosen.left_out,
            "notes": notes,
        },
    )
    if offline:
        from medgan.readers.offline import write_offline

        write_offline(study, out / "offline")
    for note in notes:
        log.warning("%s", note)
    result = {"study": study.id, "sections": len(study.sections), **told, "left_out": chosen.left_out, "notes": notes}
    click.echo(json.dumps(result | {"next": "medgan readers serve OUT"}, indent=2))


@command.command("serve")
@click.argument("study", type=PATH)
@options_from(ServeConfig)
def serve(study: Path, **flags: Any) -> None:
    """Serve the study in the folder STUDY to readers until it is stopped; every answer is in the database at once.

    Prints the address and the administrator's link, where invitations are made. The key is not opened.

    Example: medgan readers serve study --port 8000
    """
    config = resolve(ServeConfig(), flags)
    from medgan.readers.study import read_study

    shown = read_study(study)
    with needs_extra():
        from medgan.readers.serve import serve as served
        from medgan.readers.store import default_url

    def started(url: str, administrator: str) -> None:
        click.echo(json.dumps({"study": shown.id, "url": url, "administrator": administrator}))

    with contextlib.suppress(KeyboardInterrupt):
        served(shown, config.database or default_url(study), host=config.host, port=config.port, url=config.url, started=started)


@contextlib.contextmanager
def needs_extra() -> Iterator[None]:
    """Say how to install what is missing of the extra `readers`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the package {error.name} is not installed, which reader studies need", fix="pip install 'medgan[readers]'"
        ) from None


@command.command("score")
@click.argument("study", type=PATH)
@click.option("--answers", multiple=True, type=PATH, metavar="CSV", help="answers that the offline page saved; repeatable")
@option_for(ServeConfig, "database")
@click.option(
    "--metrics",
    "words",
    multiple=True,
    metavar="NAME=PATH",
    help="metrics.json of a model, for FID and recall beside readers' rates; repeatable",
)
@click.option("--out", type=PATH, envvar="MEDGAN_OUT", help="folder for tables and figures  [default: STUDY/results]")
def score(study: Path, answers: tuple[Path, ...], database: str | None, words: tuple[str, ...], out: Path | None) -> None:
    """Rates of readers and models, tests and figures from all answers to the study in the folder STUDY.

    The positive class is real. OUT gets results.json, CSV and LaTeX tables, results.txt and figures; none of them names an image.

    Example: medgan readers score study --answers usb.csv --metrics ada=ada/metrics.json
    """
    from medgan import runs
    from medgan.readers.answers import read_answers
    from medgan.readers.results import as_json, read_metrics, text, write
    from medgan.readers.results import score as scored
    from medgan.readers.study import read_key, read_study

    shown, key = read_study(study), read_key(study)
    beside = {name: read_metrics(path, name) for name, path in _named(words, "--metrics").items()}
    given = [answer for path in answers for answer in read_answers(path)] + _served(database or "", study, shown.id)
    if not (given or answers):
        raise ConfigError("no answers are given, and the study's database has none", fix="--answers CSV, or --database URL")
    result = scored(shown, key, given, beside)
    out = out or study / "results"
    if out.is_file():
        raise ConfigError("--out is a file", fix="name a folder")
    runs.check_writable(out, "--out")
    files = write(result, out)
    click.echo(text(result), err=True)
    click.echo(json.dumps({**as_json(result), "files": files}, indent=2, allow_nan=False))


def _served(database: str, folder: Path, study: str) -> list[Answer]:
    """Answers that the web application saved; none where it never ran."""
    from medgan.readers.study import DATABASE

    if not database and not (folder / DATABASE).is_file():
        return []
    with needs_extra():
        from medgan.readers.store import answers, default_url
    return answers(database or default_url(folder), study)


def _named(words: Sequence[str], flag: str) -> dict[str, Path]:
    """Words NAME=PATH.

    Raises:
        ConfigError: A word is none, or a name is given twice or means something else.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (equals and path and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name)):
            raise ConfigError(f"{flag} takes NAME=PATH, the name of letters, digits and . _ + -", fix=f"{flag} ada=PATH")
        if name in found or name in ("all", "real", "train"):
            raise ConfigError(
                f"{flag}: the name {name!r} {'is given twice' if name in found else 'means something else'}", fix="another name"
            )
        found[name] = Path(path)
    return found
