"""The result folders of a job: what goes into them, what an earlier launch left there, and what the privacy gate takes out again."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from medgan.errors import ConfigError

# What must not lie in the result folders when the gate refuses: images, whatever shows them, and networks.
RELEASED = {
    "report": ("report.html", "figures", "pack"),
    "synthetic": ("synthetic.zip", "seed*.png", "manifest.csv", "contact_sheet.png"),
    "model": ("bundle.zip", "MODEL_CARD.md", "SHA256SUMS"),
    "checkpoint": ("state.pt", "config.json", "bundle"),
}

STATE = "state.pt"


@dataclass(frozen=True)
class Folders:
    """The result folders, each with the run's own sub-folder."""

    output: Path
    run_name: str

    def __call__(self, resource: str) -> Path:
        """The folder of a resource, `report` say."""
        return self.output / resource / self.run_name

    def withdraw(self) -> None:
        """Remove what an earlier launch of the same run released: it came from a state on the way to the refused one."""
        for resource, names in RELEASED.items():
            for name in names:
                for file in self(resource).glob(name):
                    remove(file)


def take_over(resume: str, left: Path, run: Path) -> bool:
    """Bring the state of an earlier job into the run folder, unless the one there is as far.

    Args:
        resume: `auto`, `new`, or where the state is: a checkpoint folder, a run folder or the file.
        left: Where the same job leaves it, for `auto`.
        run: The run folder.

    Returns:
        Whether it was brought.

    Raises:
        ConfigError: The path holds no state.
    """
    from medgan import runs
    from medgan.training.state import images_shown

    if resume == "new":
        return False
    given = left if resume == "auto" else Path(resume)
    state = next((path for path in (given, given / STATE, given / runs.STATE) if path.is_file()), None)
    if state is None:
        if resume == "auto":
            return False
        raise ConfigError("--resume names no saved state", fix="--resume auto, new, or the path of a checkpoint folder")
    own = run / runs.STATE
    if own.exists() and images_shown(own) >= images_shown(state):
        return False
    folder = given if given.is_dir() else state.parent
    for name in runs.GOES_ON:
        remove(run / name)
        copy(folder / name, run / name)
    copy(state, own)
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file, or the files of a folder, each atomically; nothing where there is none."""
    from medgan.runs import atomic

    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.is_file():
                copy(file, target / file.relative_to(source))
    elif source.exists():
        with atomic(target) as temporary:
            shutil.copyfile(source, temporary)


def export_report(run: Path, folders: Folders, *, include_real_examples: bool, pack: bool) -> None:
    """The report and what lies beside it; `pack` adds the reporting checklists, which a data check has nothing to say to."""
    from medgan import runs
    from medgan.reports.build import build_report

    report = folders("report")
    for name in ("figures", "pack"):
        # What an earlier launch drew and this one does not.
        for folder in (run, report):
            shutil.rmtree(folder / name, ignore_errors=True)
    build_report(
        run,
        run / runs.REPORT,
        include_real_examples=include_real_examples,
        figures=run / "figures",
        citation=run / "CITATION.md",
        pack=run / "pack" if pack else None,
    )
    for name in (runs.REPORT, "figures", "pack", "CITATION.md", runs.PROVENANCE, runs.JOB, runs.STATUS, runs.DATASET, runs.PLAN):
        copy(run / name, report / name)


def export(run: Path, folders: Folders, *, partial: bool, include_real_examples: bool) -> None:
    """The five result folders; the report last, because it says that all is there."""
    from medgan import runs

    # What the data check said was missing here.
    for resource in ("synthetic", "metrics", "model", "checkpoint"):
        (folders(resource) / "README.txt").unlink(missing_ok=True)
    synthetic, checkpoint = folders("synthetic"), folders("checkpoint")
    # What an earlier launch of the same run left and this one does not make again.
    for stale in (synthetic / "synthetic.zip", *synthetic.glob("seed*.png")):
        stale.unlink(missing_ok=True)
    for file in sorted((run / runs.SYNTHETIC).iterdir()):
        if file.name != runs.PROVENANCE:
            copy(file, synthetic / file.name)
    for name in (runs.EVALUATIONS, runs.METRICS, runs.STATS):
        copy(run / name, folders("metrics") / name)
    # Its result only: the gallery beside it shows patients.
    (folders("metrics") / "audit.json").unlink(missing_ok=True)
    copy(run / runs.AUDIT / "audit.json", folders("metrics") / "audit.json")
    _export_model(run / runs.BUNDLE, folders("model"))
    if partial:
        for name in runs.GOES_ON:
            copy(run / name, checkpoint / name)
        copy(run / runs.STATE, checkpoint / STATE)
    export_report(run, folders, include_real_examples=include_real_examples, pack=True)
    copy(run / "figures" / "curves.png", folders("metrics") / "curves.png")
    if not partial:
        runs.write_text(checkpoint / "README.txt", "The training is complete: there is no state to resume from.\n")
        # Only now: a job that was killed on the way here goes on from it.
        for name in (STATE, *runs.GOES_ON):
            remove(checkpoint / name)


def _export_model(bundle: Path, model: Path) -> None:
    """The bundle as one zip with fixed times, its card and checksums."""
    from medgan import runs
    from medgan.data.dataset import ZIP_TIME

    with runs.atomic(model / "bundle.zip") as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(f for f in bundle.rglob("*") if f.is_file()):
            with (
                file.open("rb") as source,
                archive.open(zipfile.ZipInfo(file.relative_to(bundle).as_posix(), ZIP_TIME), "w", force_zip64=True) as target,
            ):
                shutil.copyfileobj(source, target)
    copy(bundle / "docs" / "README.md", model / "MODEL_CARD.md")
    sums = [f"{runs.sha256(model / name)}  {name}\n" for name in ("bundle.zip", "MODEL_CARD.md")]
    runs.write_text(model / "SHA256SUMS", "".join(sums))
