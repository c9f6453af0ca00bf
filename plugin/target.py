"""What a job is launched on in XNAT, which of its sessions and scans are meant, and the settings that say so."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from medgan.config import setting
from medgan.errors import ConfigError
from plugin.rest import quoted


@dataclass(frozen=True)
class Target:
    """What a job was launched on.

    Args:
        path: Its REST path.
        level: `project`, `session` or `scan`.
    """

    path: str
    level: str


def target_of(target: str, project: str = "") -> Target:
    """The object behind XNAT's address of it: `/archive/projects/P`, `/archive/experiments/E/scans/1`, with or without server and /data.

    Args:
        target: The address; empty for the whole project.
        project: The project's id, where `target` is empty.

    Raises:
        ConfigError: Neither is given, or the address is of something else.
    """
    if not target.strip():
        if not project.strip():
            raise ConfigError("no project, session or scan is named", fix="--target projects/ID, or --project-id ID")
        target = f"projects/{project.strip()}"
    address = urlsplit(target.strip())
    # A whole address may have XNAT's own path before /data.
    path = address.path.partition("/data/")[2] if address.scheme else address.path
    parts = [unquote(part) for part in path.split("/") if part]
    while parts and parts[0] in ("data", "archive", "REST"):
        parts.pop(0)
    pairs = dict(zip(parts[::2], parts[1::2], strict=False))
    words, odd = "/".join(parts[::2]), any(part in (".", "..") or re.search(r"[\x00-\x1f\\]", part) for part in parts)
    shape = r"(projects|(projects/)?(subjects/)?experiments(/scans)?)"
    if len(parts) % 2 or odd or not re.fullmatch(shape, words) or len(pairs) != len(parts) // 2:
        raise ConfigError(
            "--target is no address of a project, session or scan", fix="like projects/ID, experiments/ID or experiments/ID/scans/1"
        )
    level = "scan" if "scans" in pairs else "session" if "experiments" in pairs else "project"
    return Target("/data/" + quoted(*parts), level)


@dataclass(frozen=True)
class Filters:
    """Which sessions and scans are taken.

    Args:
        sessions: Patterns of session labels, separated by commas, with the wildcards `*`, `?` and `[...]`; empty for all.
        scan_types: The same for XNAT's types of scans.
    """

    sessions: str = ""
    scan_types: str = ""

    def __bool__(self) -> bool:
        return bool(patterns(self.sessions) or patterns(self.scan_types))

    def takes_session(self, label: str) -> bool:
        """Whether a session of this label is taken."""
        return _fits(label, self.sessions)

    def takes_scan(self, kind: str) -> bool:
        """Whether a scan of this type is taken."""
        return _fits(kind, self.scan_types)


def patterns(text: str) -> list[str]:
    """The patterns of a setting, in lower case: separated by commas, not by blanks, for `T1 MPRAGE` is one type."""
    return [pattern.strip().lower() for pattern in text.split(",") if pattern.strip()]


def _fits(name: str, wanted: str) -> bool:
    known = patterns(wanted)
    return not known or any(fnmatch.fnmatchcase(name.strip().lower(), pattern) for pattern in known)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where scans come from and results go to besides the folders; none of it changes what a job computes."""

    source: str = setting(
        "auto",
        "where scans come from: the mounted folder, XNAT over REST, a DICOMweb server, or (auto) the folder if it holds any, else REST",
        choices=("auto", "mount", "rest", "dicomweb"),
        label="Source",
    )
    dicomweb: str = setting("", "address of the DICOMweb server, e.g. https://pacs.example.org/dicom-web", metavar="URL", label="DICOMweb")
    query: str = setting(
        "", "which of its series, as keys and values of QIDO-RS, e.g. 'Modality=CT&StudyDescription=*liver*'", metavar="KEYS", label="Query"
    )
    target: str = setting("", "XNAT's address of the project, session or scan, e.g. projects/ID", label="Target")
    project_id: str = setting("", "the project, where --target is not given", label="Project")
    sessions: str = setting("", "only sessions of a project whose label fits one of these patterns, e.g. CT_*,MR_0?", label="Sessions")
    scan_types: str = setting("", "only scans whose type in XNAT fits one of these patterns, e.g. CT,T1*", label="Scan types")
    earlier_run: str = setting("", "which earlier run to resume from, by its name, e.g. run-1234 (empty: the newest)", label="Earlier run")
    live: float = setting(
        0.0, "minutes between uploads of status and newest state to XNAT while training (0: none)", label="Live upload (min)"
    )
    upload: bool = setting(False, "send the results to XNAT over REST; XNAT's own launches need no such thing", label="Upload")

    def __post_init__(self) -> None:
        if not 0 <= self.live < 10_000:
            raise ConfigError("--live is not a number of minutes", fix="--live 30, or 0 for none")
        if self.source != "dicomweb" and (self.dicomweb or self.query):
            raise ConfigError("--dicomweb and --query are of --source dicomweb", fix="--source dicomweb, or leave them out")
        if self.source == "dicomweb" and self.filters:
            raise ConfigError("--sessions and --scan-types choose in XNAT", fix="--query chooses on a DICOMweb server")
        if self.target or self.project_id:
            self.place()

    @property
    def filters(self) -> Filters:
        """Which sessions and scans."""
        return Filters(self.sessions, self.scan_types)

    def place(self) -> Target:
        """What the job is launched on, in XNAT.

        Raises:
            ConfigError: It is not given, or is no address.
        """
        return target_of(self.target, self.project_id)
