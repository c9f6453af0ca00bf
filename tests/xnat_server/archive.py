"""What the fake XNAT holds: objects in memory, files in a folder laid out as XNAT's own archive (XNAT.md 2.2).

    <archive>/<PROJECT>/resources/<LABEL>/...                               project resources: not in a container's mount
    <archive>/<PROJECT>/subjects/<SUBJECT>/<LABEL>/...
    <archive>/<PROJECT>/arc001/<SESSION>/SCANS/<ID>/<LABEL>/...             what a project launch mounts is arc001
    <archive>/<PROJECT>/arc001/<SESSION>/RESOURCES/<LABEL>/...
    <archive>/<PROJECT>/arc001/<SESSION>/ASSESSORS/<ASSESSOR>/<LABEL>/...

The folder is the truth about files: whatever lies in a resource's folder is listed, but its `*_catalog.xml`.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import quoteattr

Files = Path | Mapping[str, bytes] | Iterable[Path]

# Kinds of objects are named as the collections of a REST path are.
HOLDS = {
    "projects": ("subjects", "resources"),
    "subjects": ("experiments", "resources"),
    "experiments": ("scans", "assessors", "resources"),
    "assessors": ("resources",),
    "scans": ("resources",),
    "resources": (),
}


@dataclass(eq=False)
class Node:
    """One object: a project, subject, session, scan, assessor or resource.

    Attributes:
        kind: Collection it is in, one of HOLDS; an assessor has "assessors".
        number: Counts the objects of a kind: XNAT's database key.
        id: Unique in XNAT for subjects, experiments and resources ("XNAT_E00001"), in its session for a scan ("2").
        label: What people see and what names the folder; a project's and a scan's is its id.
        fields: Other metadata, by the last part of its XNAT path ("series_description").
        members: Of a project: user to role (owner, member, collaborator). Administrators need none.
        shared: Of a session: other projects it is shared into, with the label it has there.
    """

    archive: Archive
    kind: str
    number: int
    id: str
    label: str
    xsi_type: str
    parent: Node | None = None
    fields: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)

    def up(self, kind: str) -> Node | None:
        """The nearest object of this kind at or above this one."""
        node: Node | None = self
        while node is not None and node.kind != kind:
            node = node.parent
        return node

    @property
    def project(self) -> Node:
        node = self.up("projects")
        assert node is not None
        return node

    @property
    def uri(self) -> str:
        """The path below /data by which XNAT names it in listings."""
        if self.parent is None or self.kind in ("subjects", "experiments"):
            return f"/{self.kind}/{self.id}"
        return f"{self.parent.uri}/{self.kind}/{self.id}"

    @property
    def archive_uri(self) -> str:
        """The path a launch is given as its root: /archive/projects/P, /archive/experiments/E, /archive/experiments/E/scans/1."""
        return f"/archive{self.uri}"

    @property
    def folder(self) -> Path:
        """Where its files lie; a project's is what a launch on it mounts."""
        if self.parent is None:
            return self.archive.folder / self.id / "arc001"
        match self.parent.kind, self.kind:
            case "projects", _:
                return self.archive.folder / self.parent.id / self.kind / self.label
            case "subjects", "experiments":
                return self.project.folder / self.label
            case "experiments", _:
                return self.parent.folder / self.kind.upper() / self.label
        return self.parent.folder / self.label

    def holds(self, kind: str) -> bool:
        """Whether objects of a collection lie directly below this one."""
        return kind in HOLDS[self.kind]

    def of(self, kind: str) -> list[Node]:
        """The objects of one collection below this one, as a REST path finds them: a project's experiments are its subjects'."""
        if kind == "experiments" and self.kind == "projects":
            own = [session for subject in self.of("subjects") for session in subject.of("experiments")]
            return own + [e for e in self.archive.all("experiments") if self.id in e.shared]
        if kind == "projects":
            return [self.project, *(p for p in self.archive.projects if p.id in self.shared)]
        if kind == "resources" and self.kind == "resources":
            return [self]
        return [child for child in self.children if child.kind == kind]

    def find(self, kind: str, label: str) -> Node:
        """The one object of a collection with this label or id.

        Raises:
            LookupError: There is none, or more than one.
        """
        found = [node for node in self.of(kind) if label in (node.label, node.id)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} {kind} called {label} in {self.label}; there are {[n.label for n in self.of(kind)]}")
        return found[0]

    # -- seeding ---------------------------------------------------------------------------------------------------------

    def subject(self, label: str, **fields: str) -> Node:
        """The subject of this label in this project, made if it is not there."""
        found = [s for s in self.of("subjects") if s.label == label]
        return found[0] if found else self.archive.add(self, "subjects", label, "xnat:subjectData", fields)

    def session(self, label: str, *, subject: str = "PATIENT1", modality: str = "MR", **fields: str) -> Node:
        """A new imaging session in this project; `fields` such as date="2024-01-31"."""
        return self.archive.add(
            self.subject(subject), "experiments", label, f"xnat:{modality.lower()}SessionData", {"modality": modality, **fields}
        )

    def scan(self, id: str, *, type: str = "unknown", files: Mapping[str, Files] | None = None, **fields: str) -> Node:
        """A new scan in this session, with files by resource label: {"DICOM": folder, or list of paths, or {name: bytes}}."""
        modality = fields.get("modality", self.fields.get("modality", "MR"))
        scan = self.archive.add(self, "scans", id, f"xnat:{modality.lower()}ScanData", {"type": type, "quality": "usable", **fields})
        for label, content in (files or {}).items():
            scan.resource(label, content)
        return scan

    def assessor(
        self, label: str, *, xsi_type: str = "icr:roiCollectionData", files: Mapping[str, Files] | None = None, **fields: str
    ) -> Node:
        """A new assessor of this session, such as a ROI collection with a resource RTSTRUCT or SEG."""
        assessor = self.archive.add(self, "assessors", label, xsi_type, fields)
        for name, content in (files or {}).items():
            assessor.resource(name, content)
        return assessor

    def resource(self, label: str, files: Files = (), *, format: str = "", content: str = "") -> Node:
        """The resource of this label, made if it is not there, with these files added to it."""
        found = [r for r in self.of("resources") if r.label == label]
        fields = {"format": format or (label if label in ("DICOM", "NIFTI") else ""), "content": content, "description": "", "tags": ""}
        node = found[0] if found else self.archive.add(self, "resources", label, "xnat:resourceCatalog", fields)
        for name, data in _read(files):
            node.store(name, data, overwrite=True)
        node.write_catalog()
        return node

    # -- files of a resource ---------------------------------------------------------------------------------------------

    def files(self) -> dict[str, Path]:
        """Relative posix name to path of each file of this resource, in order of name."""
        found = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*") if p.is_file()}
        return {name: found[name] for name in sorted(found) if "/" in name or not name.endswith("_catalog.xml")}

    def read(self, name: str) -> bytes:
        """The content of one file of this resource."""
        return (self.folder / name).read_bytes()

    def store(self, name: str, data: bytes, *, overwrite: bool) -> bool:
        """Keep a file. Returns False, and keeps the one there, where the name exists and overwrite is not given.

        Raises:
            ValueError: The name leaves the resource's folder.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(name)
        target = self.folder / path
        if target.exists() and not overwrite:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return True

    def catalog(self) -> str:
        """The resource's catalog as XNAT writes it beside the files and answers on GET of the resource."""
        namespaces = 'xmlns:cat="http://nrg.wustl.edu/catalog" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        entries = "".join(
            f'\n<cat:entry ID={quoteattr(name)} URI={quoteattr(name)} name={quoteattr(path.name)} digest="{md5(path)}" xsi:type="cat:entry"/>'
            for name, path in self.files().items()
        )
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<cat:Catalog ID={quoteattr(self.label)} {namespaces}>\n<cat:entries>{entries}\n</cat:entries>\n</cat:Catalog>\n'

    @property
    def catalog_path(self) -> Path:
        """Where XNAT keeps the catalog: among the files, called after the scan or the label."""
        scan = self.parent.id if self.parent and self.parent.kind == "scans" else None
        return self.folder / (f"scan_{scan}_catalog.xml" if scan else f"{self.label}_catalog.xml")

    def write_catalog(self) -> None:
        """Bring the catalog on disk up to date."""
        self.catalog_path.write_text(self.catalog())

    def rename(self, label: str) -> None:
        """Give this object another label, and its folder another name."""
        old = self.folder
        self.label = label
        old.rename(self.folder)

    def remove(self) -> None:
        """Take this object, all below it and its files out of the archive."""
        (self.parent.children if self.parent else self.archive.projects).remove(self)
        sessions = self.of("experiments") if self.kind == "subjects" else []
        for folder in [self.folder.parent if self.kind == "projects" else self.folder, *(session.folder for session in sessions)]:
            shutil.rmtree(folder, ignore_errors=True)


class Archive:
    """All projects of the server.

    Args:
        folder: Where the files lie; XNAT's is usually /data/xnat/archive.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.projects: list[Node] = []
        self._numbers = {kind: itertools.count(1) for kind in HOLDS}
        folder.mkdir(parents=True, exist_ok=True)

    def project(self, id: str, *, owner: str = "admin", **fields: str) -> Node:
        """The project of this id, made if it is not there."""
        found = [p for p in self.projects if p.id == id]
        if found:
            return found[0]
        project = self.add(None, "projects", id, "xnat:projectData", {"name": id, "secondary_ID": id, "description": "", **fields})
        project.members[owner] = "owner"
        return project

    def add(self, parent: Node | None, kind: str, label: str, xsi_type: str, fields: Mapping[str, str]) -> Node:
        """Add an object below another and make its folder."""
        # Assessors are experiments too and share their ids.
        number = next(self._numbers["experiments" if kind == "assessors" else kind])
        prefix = {"subjects": "XNAT_S", "experiments": "XNAT_E", "assessors": "XNAT_E"}.get(kind)
        id = f"{prefix}{number:05}" if prefix else str(100 + number) if kind == "resources" else label
        if prefix:
            fields = {"insert_date": "2024-01-01 00:00:00", **fields}
        node = Node(self, kind, number, id, label, xsi_type, parent, dict(fields))
        node.folder.mkdir(parents=True, exist_ok=True)
        (parent.children if parent else self.projects).append(node)
        return node

    def all(self, kind: str) -> list[Node]:
        """Every object of a kind; experiments come with the assessors, which have the same ids."""
        return list(_below(self.projects, ("experiments", "assessors") if kind == "experiments" else (kind,)))


def _below(nodes: Iterable[Node], kinds: tuple[str, ...]) -> Iterator[Node]:
    for node in nodes:
        if node.kind in kinds:
            yield node
        yield from _below(node.children, kinds)


def _read(files: Files) -> Iterator[tuple[str, bytes]]:
    if isinstance(files, Mapping):
        yield from files.items()
    elif isinstance(files, Path):
        yield from ((p.relative_to(files).as_posix(), p.read_bytes()) for p in sorted(files.rglob("*")) if p.is_file())
    else:
        yield from ((p.name, p.read_bytes()) for p in files)


def md5(path: Path) -> str:
    """The digest XNAT keeps of a file in its catalogs."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
