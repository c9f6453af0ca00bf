"""How XNAT writes what it holds: listings as JSON, CSV, XML or HTML; objects as JSON items or XML."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from tests.xnat_server.archive import Node, md5
from tests.xnat_server.web import Answer, Request

Row = dict[str, str]
# Types that stand for a family in `xsiType=` and in a wrapper's contexts, and what ends the names of that family.
FAMILIES = {
    "xnat:experimentData": "",
    "xnat:subjectAssessorData": "SessionData",
    "xnat:imageSessionData": "SessionData",
    "xnat:imageScanData": "ScanData",
    "xnat:imageAssessorData": "roiCollectionData",
}
# Fields that xnat.xsd has as attributes; the others are elements.
ATTRIBUTES = {"ID", "project", "label", "type", "modality", "secondary_ID", "file_count", "file_size", "format", "content"}
# Elements whose name is not that of their type: xnat:ctSessionData is an xnat:CTSession.
ELEMENTS = {
    "xnat:mrSessionData": "xnat:MRSession",
    "xnat:ctSessionData": "xnat:CTSession",
    "xnat:mrScanData": "xnat:MRScan",
    "xnat:ctScanData": "xnat:CTScan",
}
NAMESPACES = 'xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:icr="http://icr.ac.uk/icr" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def covers(family: str, type: str) -> bool:
    """Whether a type is this one, or belongs to this family."""
    return family == type or (family in FAMILIES and type.endswith(FAMILIES[family]))


# -- rows ----------------------------------------------------------------------------------------------------------------


def _project(node: Node) -> Row:
    return {**_some(node, "secondary_ID", "name", "description", "pi_firstname", "pi_lastname"), "ID": node.id}


def _subject(node: Node) -> Row:
    return {"ID": node.id, "project": node.project.id, "label": node.label, **_some(node, "insert_date", "insert_user")}


def _experiment(node: Node) -> Row:
    subject = node.up("subjects")
    assert subject is not None
    subject_row = {"subject_ID": subject.id, "subject_label": subject.label}
    own = {"ID": node.id, "project": node.project.id, "xsiType": node.xsi_type, "label": node.label}
    return {**own, **_some(node, "date", "insert_date", "modality"), **subject_row}


def _scan(node: Node) -> Row:
    some = _some(node, "type", "quality", "note", "series_description", "frames")
    return {"xnat_imagescandata_id": str(node.number), "ID": node.id, "xsiType": node.xsi_type, **some}


def _resource(node: Node) -> Row:
    parent = node.parent
    assert parent is not None
    sizes = [path.stat().st_size for path in node.files().values()]
    return {
        "xnat_abstractresource_id": node.id,
        "label": node.label,
        "element_name": node.xsi_type,
        "category": parent.kind,
        "cat_id": parent.id,
        "cat_desc": parent.fields.get("type", ""),
        "file_count": str(len(sizes)),
        "file_size": str(sum(sizes)),
        **_some(node, "tags", "content", "format", "description"),
    }


def _some(node: Node, *names: str) -> Row:
    return {name: node.fields.get(name, "") for name in names}


ROWS = {
    "projects": _project,
    "subjects": _subject,
    "experiments": _experiment,
    "assessors": _experiment,
    "scans": _scan,
    "resources": _resource,
}


def listing(request: Request, kind: str, nodes: Iterable[Node]) -> Answer:
    """The objects of one collection: those that the query's filters leave, with the columns it asks for.

    Listings of resources have fixed columns. Of the others the type and the URI are always there, and a column asked for by its
    path ("xnat:mrSessionData/date") is called so in lower case; a subject's id comes under its short name too (pyxnat reads both).
    """
    query = request.query
    names = [name for name in query.get("columns", "").split(",") if name]
    rows = []
    for node in nodes:
        row = {**ROWS[kind](node), "URI": f"/data{node.uri}" if node.kind != "assessors" else f"/data/experiments/{node.id}"}
        if "xsiType" in query and not covers(query["xsiType"], node.xsi_type):
            continue
        if any(query[key] != row[key] for key in ("ID", "label", "project", "subject_ID", "date") if key in query and key in row):
            continue
        if not names or kind == "resources":
            rows.append(row)
            continue
        always = {key: row[key] for key in ("xsiType", "URI") if key in row}
        if any(name.lower().endswith("data/subject_id") for name in names):
            always["subject_ID"] = row["subject_ID"]
        # A column of the scans makes a row of each scan.
        of_scans: list[Node | None] = [None]
        if any(name.startswith("xnat:imageScanData/") for name in names):
            of_scans = list(node.of("scans"))
        rows += [{name.lower() if ":" in name else name: _value(name, row, scan) for name in names} | always for scan in of_scans]
    return table(request, rows)


def _value(name: str, row: Row, scan: Node | None) -> str:
    path, _, last = name.rpartition("/")
    source = _scan(scan) if scan is not None and path == "xnat:imageScanData" else row
    return next((value for key, value in source.items() if key.lower() == last.lower()), "")


def files(request: Request, resources: Iterable[Node]) -> Answer:
    """The files of resources. The column `path` (name with folders) is there only when it is asked for."""
    rows = []
    for resource in resources:
        for name, path in resource.files().items():
            row = {
                "Name": path.name,
                "Size": str(path.stat().st_size),
                "URI": f"/data{quote(resource.uri)}/files/{quote(name)}",
                "collection": resource.label,
                "file_tags": resource.fields.get("tags", ""),
                "file_format": resource.fields.get("format", ""),
                "file_content": resource.fields.get("content", ""),
                "cat_ID": resource.id,
                "digest": md5(path),
            }
            rows.append({**row, "path": name} if "path" in request.query.get("columns", "").split(",") else row)
    return table(request, rows, title="Files")


def table(request: Request, rows: Sequence[Row], title: str = "") -> Answer:
    """Rows in the form that `format` asks for: json (the default), csv, xml or html."""
    format = request.query.get("format") or {"text/csv": "csv", "text/html": "html"}.get(request.headers.get("Accept", ""), "json")
    if format == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]) if rows else ["ID", "URI"], quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return Answer.text(buffer.getvalue(), type="text/csv;charset=UTF-8")
    if format in ("html", "xml"):
        cells = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
        return Answer.text(f"<html><body><table>{cells}</table></body></html>", type=f"text/{format};charset=UTF-8")
    return Answer.json({"ResultSet": {"Result": list(rows), "totalRecords": str(len(rows)), **({"title": title} if title else {})}})


# -- one object ----------------------------------------------------------------------------------------------------------


def fields(node: Node) -> dict[str, object]:
    """An object's own fields under the names its schema gives them; blank ones are left out."""
    own: dict[str, object] = dict(node.fields)
    if node.kind == "resources":
        sizes = [path.stat().st_size for path in node.files().values()]
        own |= {"label": node.label, "xnat_abstractresource_id": int(node.id), "file_count": len(sizes), "file_size": sum(sizes)}
        own["URI"] = str(node.catalog_path)
    else:
        own["ID"] = node.id
    if node.kind in ("subjects", "experiments", "assessors"):
        own |= {"project": node.project.id, "label": node.label}
    if node.parent and (above := {"experiments": "subject_ID", "assessors": "imageSession_ID", "scans": "image_session_ID"}.get(node.kind)):
        own[above] = node.parent.id
    return {key: value for key, value in own.items() if value != ""}


def below(node: Node) -> dict[str, list[Node]]:
    """The objects below this one by the field its schema has them in; a project's are not shown with it."""
    names = {"scans": "scans/scan", "assessors": "assessors/assessor", "experiments": "experiments/experiment"}
    groups: dict[str, list[Node]] = {}
    for child in node.children if node.kind != "projects" else []:
        groups.setdefault(names.get(child.kind, "file" if node.kind == "scans" else "resources/resource"), []).append(child)
    return groups


def item(request: Request, node: Node) -> Answer:
    """One object with all below it, as `format` asks: json, or xml (the default)."""
    if (request.query.get("format") or request.headers.get("Accept", "")).endswith("json"):
        return Answer.json({"items": [_json(node)]})
    name = ELEMENTS.get(node.xsi_type) or _element(node.xsi_type)
    return Answer.text(f'<?xml version="1.0" encoding="UTF-8"?>\n{_xml(node, name, NAMESPACES)}\n', type="text/xml;charset=UTF-8")


def _json(node: Node) -> dict[str, object]:
    return {
        "children": [{"field": field, "items": [_json(child) for child in group]} for field, group in below(node).items()],
        "meta": {"xsi:type": node.xsi_type, "isHistory": False, "start_date": "Mon Jan 01 00:00:00 UTC 2024"},
        "data_fields": fields(node),
    }


def _element(type: str) -> str:
    prefix, _, name = type.removesuffix("Data").partition(":")
    return f"{prefix}:{name[:1].upper()}{name[1:]}"


def _xml(node: Node, name: str, more: str) -> str:
    own = fields(node)
    attributes = "".join(f" {key}={quoteattr(str(value))}" for key, value in own.items() if key in ATTRIBUTES)
    inside = "".join(f"<xnat:{key}>{escape(str(value))}</xnat:{key}>" for key, value in own.items() if key not in ATTRIBUTES)
    for field, group in below(node).items():
        outer, _, inner = field.rpartition("/")
        children = "".join(_xml(child, f"xnat:{inner}", f'xsi:type="{child.xsi_type}"') for child in group)
        inside += f"<xnat:{outer}>{children}</xnat:{outer}>" if outer else children
    return f"<{name} {more}{attributes}>{inside}</{name}>"
