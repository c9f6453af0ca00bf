"""Where a job's scans and its earlier state come from: the mounted folder, XNAT over REST, or a DICOMweb server."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from pathlib import Path

from medgan.errors import ConfigError, InputError, MedganError, OutputError
from medgan.runs import STATE
from plugin import dicomweb
from plugin.credentials import Site, ask, site
from plugin.fetch import fetch, scans_of, sessions_of
from plugin.rest import Connection
from plugin.results import CHECKPOINT, CHECKPOINT_LABEL, beside, checkpoint_files, fetch_state, md5, newest_state
from plugin.surroundings import Folders, check_input, has_scans
from plugin.target import SourceConfig, Target

log = logging.getLogger("medgan.xnat")

FOUND = "a state of an earlier run is there (%s): this one goes on from it if data, seed and settings are the same"


class Remote:
    """The servers of a job, each asked for at most once: credentials are read when the command starts, and leave the environment then.

    Args:
        config: What the command line said.
        needed: Whether the job cannot do without.
    """

    def __init__(self, config: SourceConfig, *, needed: bool) -> None:
        self.config = config
        self._site: Site | None = None
        if needed:
            config.place()
            self._site = site(os.environ, ask=ask if sys.stdin and sys.stdin.isatty() else None)
        elif os.environ.get("XNAT_HOST") and (config.target or config.project_id):
            with contextlib.suppress(ConfigError):
                self._site = site(os.environ)
        self.archive = dicomweb.server(os.environ, config.dicomweb, config.query) if config.source == "dicomweb" else None
        # A job that asks nothing of a server needs no password either.
        for name in ("XNAT_PASS", *dicomweb.SECRETS):
            os.environ.pop(name, None)

    def __bool__(self) -> bool:
        return self._site is not None

    @property
    def site(self) -> Site:
        """The site.

        Raises:
            InputError: None is known.
        """
        if self._site is None:
            raise InputError("no XNAT site to read from", fix="set XNAT_HOST, XNAT_USER and XNAT_PASS, and give --target")
        return self._site

    @property
    def target(self) -> Target:
        """What the job is launched on."""
        return self.config.place()

    def writing(self) -> Connection:
        """A connection whose failures are those of the output."""
        return Connection(self.site, OutputError)

    def reading(self, *, once: bool = False) -> Connection:
        """A connection whose failures are those of the input."""
        return Connection(self.site, InputError, pauses=()) if once else Connection(self.site, InputError)


def find_input(config: SourceConfig, folders: Folders, remote: Remote, shown: str) -> Path:
    """The folder that the job reads: the mounted one, links to a part of it, or scans fetched into the scratch folder.

    Raises:
        InputError: There is nothing to read.
    """
    into = folders.work / "scans"
    if remote.archive:
        with dicomweb.Archive(remote.archive) as archive:
            dicomweb.fetch(archive, into)
        return into
    mounted = has_scans(folders.input)
    if config.source == "mount" or (config.source == "auto" and (mounted or not remote)):
        check_input(folders.input, shown)
        return _chosen(config, folders, remote) if config.filters else folders.input
    if config.source == "auto":
        log.info("%s holds no scans: they are read from XNAT over REST", shown)
    try:
        with remote.reading() as connection:
            fetch(connection, remote.target, config.filters, into)
    except InputError as error:
        if config.source == "auto":
            # Nobody asked for REST: what is wrong first is the mount.
            raise InputError(f"{shown} is empty, and {error.message}", fix=error.fix) from None
        raise
    return into


def _chosen(config: SourceConfig, folders: Folders, remote: Remote) -> Path:
    """Links to the sessions and scans of a mounted project or session that the filters take.

    A mount shows labels of sessions as folders; the types of scans only XNAT knows.
    """
    filters, top = config.filters, folders.input
    tops = [top] if (top / "SCANS").is_dir() else [folder for folder in sorted(top.iterdir()) if (folder / "SCANS").is_dir()]
    if not tops or (tops == [top] and filters.sessions.strip()):
        raise ConfigError(
            "--sessions and --scan-types choose in a project as XNAT mounts it",
            fix="leave them out, or mount SESSION/SCANS/NUMBER/... there",
        )
    if filters.sessions.strip():
        tops = [folder for folder in tops if filters.takes_session(folder.name)]
    if not tops:
        raise InputError("no session of the mounted project fits --sessions", fix="other patterns, e.g. 'CT_*'")
    wanted: dict[str, set[str]] = {}
    if filters.scan_types.strip():
        if not remote:
            raise InputError(
                "a mount does not show the types of scans, and no XNAT site is known that does",
                fix="--series chooses by the description in DICOM headers; or set XNAT_HOST, XNAT_USER, XNAT_PASS and --target",
            )
        with remote.reading() as connection:
            for session in sessions_of(connection, remote.target, filters):
                wanted[session.folder] = set(scans_of(connection, session, filters))
    into = folders.work / "chosen"
    shutil.rmtree(into, ignore_errors=True)
    number = 0
    for folder in tops:
        known = wanted.get("" if folder == top else folder.name, set()) if wanted else None
        for path in sorted(folder.rglob("*")):
            place = path.relative_to(folder).parts
            if path.is_file() and (known is None or place[0] != "SCANS" or place[1] in known):
                link = into / path.relative_to(top)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.absolute())
                number += place[0] == "SCANS"
    if not number:
        raise InputError("no scan fits --scan-types", fix="other patterns, e.g. 'CT*'")
    log.info("%d sessions and %d files of scans fit the filters", len(tops), number)
    return into


def earlier_state(config: SourceConfig, folders: Folders, remote: Remote, *, run_name: str, resume: str) -> Path | None:
    """The state that an earlier run left, as a run folder; None where there is none, or where the job finds one by itself.

    Looked for where a platform keeps it: in the output folder of the same run, in the mounted resources of a session or scan, in XNAT. What lies
    elsewhere comes into the scratch folder.

    Args:
        config: Where to look, and which run.
        folders: The job's folders.
        remote: The site, if one is known.
        run_name: The run's own name.
        resume: `auto` for one if there is any and neither the scratch folder nor the output has one, `checkpoint` to insist; anything else
            for none.

    Raises:
        InputError: There is none, with `checkpoint`.
    """
    run, insist = folders.work / "earlier", resume == "checkpoint"
    own = folders.output / CHECKPOINT / run_name
    if resume not in ("auto", "checkpoint") or (not insist and ((folders.work / "run" / STATE).exists() or (own / "state.pt").exists())):
        return None
    if (own / "state.pt").exists() and config.earlier_run in ("", run_name):
        return own
    shutil.rmtree(run, ignore_errors=True)
    if found := _state_on_disk(config, folders):
        (run / "checkpoint").mkdir(parents=True)
        (run / "checkpoint" / "state.pt").symlink_to(found.absolute())
        for path in map(found.with_name, beside(found.name)):
            if path.exists():
                (run / path.name).symlink_to(path.absolute())
        log.info(FOUND, f"{found.parent.name}/{found.name}")
        return run
    if remote:
        try:
            with remote.reading(once=not insist) as connection:
                files = checkpoint_files(connection, remote.target)
                digests = {file.name: file.md5 for file in files}
                if name := newest_state(digests, config.earlier_run, lambda name: digests.get(name, "")):
                    fetch_state(connection, remote.target, files, name, run)
                    log.info(FOUND, name)
                    return run
        except MedganError as error:
            if insist:
                raise
            log.warning("no state of an earlier run was looked for in XNAT: %s", error.message)
    if insist:
        raise InputError(
            "no state of an earlier run was found", fix="--resume new, or --earlier-run NAME and what it was launched on (--target)"
        )
    return None


def _state_on_disk(config: SourceConfig, folders: Folders) -> Path | None:
    places = [folders.input / CHECKPOINT_LABEL, folders.input / "RESOURCES" / CHECKPOINT_LABEL]
    files = {path.relative_to(place).as_posix(): path for place in places if place.is_dir() for path in place.rglob("*.pt")}
    return files.get(newest_state(files, config.earlier_run, lambda name: md5(files[name]) if name in files else ""))
