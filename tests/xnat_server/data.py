"""The archive over REST: `/data/...`, with and without `/archive`, with and without `/subjects/S`.

A path is walked from left to right, collection and name in turn. It ends with a collection (a listing), with an object (its item),
or with `files` and perhaps a file's name.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath

from tests.xnat_server import documents
from tests.xnat_server.archive import HOLDS, Archive, Node
from tests.xnat_server.web import Answer, Refusal, Request

# Which roles may write; a collaborator reads only.
EDITORS = ("owner", "member")


class Data:
    """Answers requests below /data for one archive.

    Args:
        archive: What is stored.
        administrators: Users with every right on every project.
    """

    def __init__(self, archive: Archive, administrators: set[str]) -> None:
        self.archive = archive
        self.administrators = administrators

    def answer(self, request: Request, parts: list[str], user: str, *, edit: bool = True) -> Answer:
        """Carry out one request.

        Args:
            request: As it came.
            parts: Path below /data, without `archive`.
            user: Who asks.
            edit: False: uploads are taken and dropped (fault no_edit_right).
        """
        at = parts.index("files") if "files" in parts else len(parts)
        name = "/".join(parts[at + 1 :])
        where, nodes = self.walk(parts[:at], user, make=request.method in ("PUT", "POST"))
        if at < len(parts):
            return self._files(request, nodes, name, user, edit)
        if isinstance(where, str):
            if request.method in ("GET", "HEAD"):
                return documents.listing(request, where, nodes)
            raise Refusal(405, "Method Not Allowed")
        return self._object(request, parts, nodes, user)

    # -- finding ---------------------------------------------------------------------------------------------------------

    def may(self, user: str, node: Node, *, edit: bool = False) -> bool:
        """Whether a user may read (or change) an object of the archive."""
        projects = [
            node.project,
            *(p for p in self.archive.projects if (session := node.up("experiments")) and p.id in session.shared and not edit),
        ]
        roles = [project.members.get(user, "") for project in projects]
        return user in self.administrators or any(role in EDITORS if edit else role for role in roles)

    def walk(self, parts: list[str], user: str, *, make: bool = False) -> tuple[str | None, list[Node]]:
        """What a path means: (collection, its objects) for a listing, (None, the objects named) otherwise.

        Raises:
            Refusal: 404 where nothing of the name is there (with `make`, a missing last name gives an empty list), 403 without right.
        """
        parts = [part for part in parts if part not in ("in", "out")]
        nodes: list[Node] | None = None
        for i in range(0, len(parts), 2):
            kind = parts[i]
            if kind not in HOLDS:
                raise Refusal(404, f"The server has not found anything matching the request URI: {kind}")
            within = self.archive.all(kind) if nodes is None else [child for node in nodes for child in node.of(kind)]
            within = list(dict.fromkeys(within))
            if i + 1 == len(parts):
                return kind, [node for node in within if self.may(user, node)]
            found = [node for node in within if _named(node, parts[i + 1], scope=nodes[0] if nodes else None)]
            if found and not any(self.may(user, node) for node in found):
                raise Refusal(403, "The user does not have access to this object")
            if not found and not (make and i + 2 >= len(parts)) and not (parts[i + 1] in ("ALL", "*") and within == []):
                raise Refusal(404, f"Unable to find the specified {kind.removesuffix('s')}")
            nodes = found
        return None, nodes or []

    # -- objects ---------------------------------------------------------------------------------------------------------

    def _object(self, request: Request, parts: list[str], nodes: list[Node], user: str) -> Answer:
        sharing = parts[-2] == "projects" and len(parts) > 2
        if request.method == "PUT" and sharing:
            return self._share(parts, user, request.query.get("label", ""))
        if request.method == "PUT" and not nodes:
            return self._make(request, parts, user)
        if not nodes:
            raise Refusal(404, "Unable to find the specified object")
        node = nodes[0]
        if request.method in ("GET", "HEAD"):
            if node.kind != "resources":
                return documents.item(request, node)
            zipped = request.query.get("format") == "zip"
            return self._zip(nodes) if zipped else Answer.text(node.catalog(), type="text/xml;charset=UTF-8")
        if request.method == "PUT":
            if node.kind == "resources":
                raise Refusal(409, "Specified resource already exists.")
            self._need_edit(user, node)
            settings = _settings(request)
            if label := settings.pop("label", ""):
                node.rename(label)
            node.fields.update(settings)
            return Answer.text(node.id)
        if request.method == "DELETE" and sharing:
            [session] = self.walk(parts[:-2], user)[1]
            self._need_edit(user, node)
            session.shared.pop(node.id, None)
            return Answer.text("")
        if request.method == "DELETE":
            for node in nodes:
                self._need_edit(user, node)
                node.remove()
            return Answer.text("")
        raise Refusal(405, "Method Not Allowed")

    def _make(self, request: Request, parts: list[str], user: str) -> Answer:
        """PUT of what is not there: 201 with its id (a resource: 200, nothing)."""
        kind, name = parts[-2], parts[-1]
        settings = _settings(request)
        if kind == "projects":
            self.archive.project(name, owner=user, **settings)
            return Answer.text(name)
        above = self.walk(parts[:-2], user)[1]
        if not above or not above[0].holds(kind):
            raise Refusal(400, "This object cannot be made here")
        self._need_edit(user, above[0])
        # The type is said by xsiType=, or by the path of any field.
        path = next((key.partition("/")[0] for key in request.query if ":" in key), "")
        defaults = {"subjects": "xnat:subjectData", "experiments": "xnat:mrSessionData", "scans": "xnat:mrScanData"}
        xsi_type = request.query.get("xsiType") or path or defaults.get(kind, "xnat:qcManualAssessorData")
        if kind == "resources":
            above[0].resource(name, format=settings.get("format", ""), content=settings.get("content", ""))
            return Answer.text("")
        if kind == "experiments":
            settings.setdefault("modality", xsi_type.partition(":")[2].removesuffix("SessionData").upper())
        return Answer.text(self.archive.add(above[0], kind, name, xsi_type, settings).id, 201)

    def _share(self, parts: list[str], user: str, label: str) -> Answer:
        [session] = self.walk(parts[:-2], user)[1]
        [project] = self.walk(parts[-2:], user)[1]
        self._need_edit(user, project)
        session.shared[project.id] = label or session.label
        return Answer.text("")

    def _need_edit(self, user: str, node: Node) -> None:
        if not self.may(user, node, edit=True):
            raise Refusal(403, "The user does not have the right to change this object")

    # -- files -----------------------------------------------------------------------------------------------------------

    def _files(self, request: Request, nodes: list[Node], name: str, user: str, edit: bool) -> Answer:
        resources = list(dict.fromkeys(resource for node in nodes for resource in node.of("resources")))
        if request.method in ("PUT", "POST"):
            return self._upload(request, resources, nodes, name, user, edit)
        if not name:
            if request.method == "DELETE":
                raise Refusal(400, "Name the file")
            if request.query.get("format") == "zip":
                return self._zip(resources)
            return documents.files(request, resources)
        found = [(resource, path) for resource in resources if (path := resource.files().get(name)) is not None]
        if not found:
            raise Refusal(404, "Unable to find specified file.")
        resource, path = found[0]
        if request.method == "DELETE":
            self._need_edit(user, resource)
            path.unlink()
            resource.write_catalog()
            return Answer.text("")
        return Answer(200, path.read_bytes(), "application/octet-stream", {"Content-Disposition": f'attachment; filename="{path.name}"'})

    def _upload(self, request: Request, resources: list[Node], nodes: list[Node], name: str, user: str, edit: bool) -> Answer:
        uploads = request.uploads()
        extract = request.query.get("extract", "false") == "true"
        if not any(data for _, data in uploads):
            raise Refusal(400, "Unable to identify any uploaded files.")
        if not request.sized and not extract:
            raise Refusal(411, "The size of the body must be known")
        if not resources:
            raise Refusal(404, "Unable to find the resource")
        resource = resources[0]
        # XNAT drops what the user may not write and can still end with no error status (XNAT.md 5.4).
        if not edit or not self.may(user, resource, edit=True):
            return Answer.text("")
        for key in ("format", "content", "description", "tags"):
            if request.query.get(key):
                resource.fields[key] = request.query[key]
        overwrite = request.query.get("overwrite", "false") == "true"
        duplicates = []
        for part_name, data in uploads:
            full = (name.rstrip("/") + "/" + part_name if name.endswith("/") else name) or part_name
            if not full:
                raise Refusal(400, "The file has no name")
            for member, content in unpack(full, data) if extract else [(full, data)]:
                try:
                    stored = resource.store(member, content, overwrite=overwrite)
                except ValueError as error:
                    raise Refusal(400, "The name leaves its resource") from error
                if not stored:
                    duplicates.append(member)
        resource.write_catalog()
        return Answer.json({"duplicates": duplicates}) if duplicates else Answer.text("")

    def _zip(self, resources: Iterable[Node]) -> Answer:
        """A zip with <SESSION>/scans/<ID>/resources/<LABEL>/files/<name>, as XNAT's."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for resource in resources:
                for name, path in resource.files().items():
                    archive.writestr(zip_prefix(resource) + name, path.read_bytes())
        return Answer(200, buffer.getvalue(), "application/zip", {"Content-Disposition": 'attachment; filename="files.zip"'})


def _settings(request: Request) -> dict[str, str]:
    """The fields a query sets, by the last part of their paths."""
    other = ("xsiType", "format", "event_reason", "req_format", "overwrite")
    return {key.rpartition("/")[2]: value for key, value in request.query.items() if key not in other or "/" in key}


def zip_prefix(resource: Node) -> str:
    """Where a resource's files lie in a zip."""
    names = []
    node = resource.parent
    while node is not None and node.kind in ("scans", "assessors"):
        names += [node.label, node.kind]
        node = node.parent
    return "/".join([*([node.label] if node else []), *reversed(names), "resources", resource.label, "files", ""])


def unpack(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """The files of an uploaded archive, below the folder its name stands in.

    Raises:
        Refusal: 400: neither zip nor tar.
    """
    folder = str(PurePosixPath(name).parent)
    prefix = "" if folder == "." else folder + "/"
    try:
        if name.endswith((".tar.gz", ".tgz", ".tar")):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                return [
                    (prefix + m.name.removeprefix("./"), (tar.extractfile(m) or io.BytesIO()).read())
                    for m in tar.getmembers()
                    if m.isfile()
                ]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(prefix + i.filename, archive.read(i)) for i in archive.infolist() if not i.is_dir()]
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise Refusal(400, "The archive cannot be read") from error


def _named(node: Node, text: str, scope: Node | None) -> bool:
    """Whether a name in a path means this object: id, label, a comma list of them, ALL or * (scans and resources)."""
    if node.kind in ("scans", "resources") and text in ("ALL", "*"):
        return True
    label = node.shared.get(scope.id, node.label) if scope else node.id
    return any(part in (node.id, label) for part in (text.split(",") if node.kind in ("scans", "resources") else [text]))
