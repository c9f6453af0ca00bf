"""An archive on this machine's disk as the Container Service sees it: the object of a launch, and the resources its results become."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from medgan.errors import ConfigError, InputError, OutputError
from medgan.runs import atomic
from plugin.resolution import Handled, Target


def target(kind: str, folder: Path, *, project: str, session: str, scan: str) -> Target:
    """The object of a launch, with the properties that our wrappers ask for.

    Args:
        kind: Project, Session or Scan.
        folder: What is mounted; or, where a project is named, the root of XNAT's archive.
        project: The project's ID, or empty.
        session: The session's label, or empty.
        scan: The scan's ID, or empty.

    Raises:
        ConfigError: The names do not go as deep as the wrapper.
        InputError: The folder does not exist.
    """
    names = {"Project": [project], "Session": [project, session], "Scan": [project, session, scan]}[kind]
    if project:
        missing = [flag for flag, name in zip(("--project", "--session", "--scan"), names, strict=False) if not name]
        if missing:
            raise ConfigError(f"a {kind.lower()} of an archive needs {' and '.join(missing)}")
        if any("/" in name or name in (".", "..") for name in names):
            raise ConfigError("--project, --session and --scan are names, not paths")
        folder = folder.joinpath(project, "arc001", *([session] if len(names) > 1 else []), *(["SCANS", scan] if len(names) > 2 else []))
    if not folder.is_dir():
        raise InputError(
            "the folder of --archive does not exist", fix="the folder that XNAT would mount, or the archive's root and --project"
        )
    project, session, scan = project or "local", session or "local", scan or "1"
    of_session = Target(
        kind="Session",
        directory=folder,
        properties={"id": session, "label": session, "uri": f"/archive/experiments/{session}", "project-id": project},
    )
    if kind == "Session":
        return of_session
    if kind == "Project":
        return Target(kind=kind, directory=folder, properties={"id": project, "label": project, "uri": f"/archive/projects/{project}"})
    uri = f"/archive/experiments/{session}/scans/{scan}"
    return Target(kind=kind, directory=folder, properties={"id": scan, "label": scan, "uri": uri}, related={"Session": of_session})


def file_results(handled: tuple[Handled, ...], output: Path) -> dict[str, int]:
    """Store the outputs as XNAT does: every child of an output's folder into its resource; a file of equal name is replaced.

    Args:
        handled: The launch's output handlers.
        output: Gets a folder for each resource label.

    Returns:
        Label -> files stored.

    Raises:
        OutputError: A required output is missing: XNAT calls such a run "Failed (Upload)".
    """
    stored: dict[str, int] = {}
    for each in handled:
        if not each.folder.exists():
            if each.required:
                raise OutputError(
                    f"the container made no {each.output}", fix="the command's output paths are folders that the container fills"
                )
            continue
        files = [each.folder] if each.folder.is_file() else sorted(path for path in each.folder.rglob("*") if path.is_file())
        for path in files:
            with atomic(output / each.label / (path.relative_to(each.folder) if each.folder.is_dir() else path.name)) as temporary:
                shutil.copyfile(path, temporary)
        stored[each.label] = stored.get(each.label, 0) + len(files)
    return stored


def next_workflow(output: Path) -> str:
    """The next free number of a run: XNAT's workflow IDs only ever grow, and the container names its folders after them."""
    used = [int(found[1]) for path in output.glob("*/run-*") if (found := re.fullmatch(r"run-(\d+)", path.name))]
    return str(max(used, default=0) + 1)
