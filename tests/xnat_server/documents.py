"""How XNAT writes what it holds: listings as JSON, CSV, XML or HTML; objects as JSON items or XML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from tests.xnat_server.archive import Archive, Node
from tests.xnat_server.web import Answer, Request

Rows = Sequence[dict[str, str]]
# Fields that xnat.xsd has as attributes; the others are elements.
ATTRIBUTES = {
    "ID",
    "project",
    "label",
    "type",
    "modality",
    "visit_id",
    "secondary_ID",
    "file_count",
    "file_size",
    "format",
    "content",
    "UID",
    "visit",
}
ELEMENTS = {"xnat:projectData": "Project", "xnat:subjectData": "Subject", "icr:roiCollectionData": "RoiCollection"}


def rows(kind: str, nodes: Sequence[Node], archive: Archive) -> list[dict[str, str]]:
    """A row per object, with the columns XNAT gives without being asked."""
    return [ROW[kind](node) for node in nodes]


def _project(node: Node) -> dict[str, str]:
    return {**_some(node, "secondary_ID", "name", "description", "pi_firstname", "pi_lastname"), "ID": node.id, "URI": f"/data{node.uri}"}


def _subject(node: Node) -> dict[str, str]:
    return {
        "ID": node.id,
        "project": node.project.id,
        "label": node.label,
        **_some(node, "insert_date", "insert_user"),
        "URI": f"/data{node.uri}",
    }


def _experiment(node: Node) -> dict[str, str]:
    subject = node.up("subjects")
    return {
        "ID": node.id,
        "project": node.project.id,
        "xsiType": node.xsi_type,
        "label": node.label,
        **_some(node, "date", "insert_date", "modality"),
        "subject_ID": subject.id if subject else "",
        "subject_label": subject.label if subject else "",
        "xnat:subjectassessordata/id": node.id,
        "URI": f"/data/experiments/{node.id}",
    }


def _scan(node: Node) -> dict[str, str]:
    return {
        "xnat_imagescandata_id": str(abs(hash(node.uri)) % 10**6),
        "ID": node.id,
        "xsiType": node.xsi_type,
        **_some(node, "type", "quality", "note", "series_description"),
        "URI": f"/data{node.uri}",
    }


def _resource(node: Node) -> dict[str, str]:
    parent = node.parent
    assert parent is not None
    files = node.files().values()
    return {
        "xnat_abstractresource_id": node.id,
        "label": node.label,
        "element_name": node.xsi_type,
        "xsiType": node.xsi_type,
        "category": parent.kind,
        "cat_id": parent.id,
        "cat_desc": parent.fields.get("type", ""),
        "file_count": str(len(files)),
        "file_size": str(sum(path.stat().st_size for path in files)),
        **_some(node, "tags", "content", "format", "description"),
        "URI": f"/data{node.uri}",
    }


ROW = {
    "projects": _project,
    "subjects": _subject,
    "experiments": _experiment,
    "assessors": _experiment,
    "scans": _scan,
    "resources": _resource,
}


def _some(node: Node, *names: str) -> dict[str, str]:
    return {name: node.fields.get(name, "") for name in names}


def listing(request: Request, rows: Rows, title: str = "") -> Answer:
    """Rows as `format` asks: json (the default), csv, xml or html. `columns` chooses columns; what a kind of object lacks stays blank."""
    wanted = [c for c in request.query.get("columns", "").split(",") if c]
    # Listings of resources and files have fixed columns, whatever is asked for.
    if wanted and not title and not any("xnat_abstractresource_id" in row for row in rows):
        rows = [{**{c: _column(row, c) for c in wanted}, "URI": row["URI"]} for row in rows]
    format = request.query.get("format") or {"text/csv": "csv", "text/html": "html"}.get(request.headers.get("Accept", ""), "json")
    if format == "csv":
        buffer = io.StringIO()
        names = list(rows[0]) if rows else wanted or ["ID", "URI"]
        table = csv.DictWriter(buffer, names, quoting=csv.QUOTE_ALL, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return Answer.text(buffer.getvalue(), type="text/csv;charset=UTF-8")
    if format in ("html", "xml"):
        cells = "".join("<tr>" + "".join(f"<td>{escape(v)}</td>" for v in row.values()) + "</tr>" for row in rows)
        return Answer.text(f"<html><body><table>{cells}</table></body></html>", type=f"text/{format};charset=UTF-8")
    result = {"Result": list(rows), "totalRecords": str(len(rows))}
    return Answer.json({"ResultSet": {"Columns": [{"key": "cat_ID"}], **result, "title": title} if title else result})


def _column(row: dict[str, str], column: str) -> str:
    short = column.rpartition("/")[2].lower()
    return next((value for key, value in row.items() if key.lower() in (column.lower(), short)), "")


def data_fields(node: Node) -> dict[str, object]:
    """An object's own fields under the names its schema gives them."""
    own: dict[str, object] = {"ID": node.id, **node.fields}
    if node.kind in ("subjects", "experiments", "assessors"):
        own |= {"project": node.project.id, "label": node.label}
    subject = node.up("subjects")
    if node.kind == "experiments" and subject:
        own["subject_ID"] = subject.id
    if node.kind == "assessors" and node.parent:
        own["imageSession_ID"] = node.parent.id
    if node.kind == "scans" and node.parent:
        own["image_session_ID"] = node.parent.id
    if node.kind == "resources":
        del own["ID"]
        files = node.files().values()
        own |= {
            "label": node.label,
            "xnat_abstractresource_id": int(node.id),
            "file_count": len(files),
            "file_size": sum(p.stat().st_size for p in files),
        }
        own["URI"] = str(node.folder / f"{node.label}_catalog.xml")
    return {key: value for key, value in own.items() if value != ""}


CHILD = {"scans": "scans/scan", "assessors": "assessors/assessor", "experiments": "experiments/experiment"}


def as_item(node: Node) -> dict[str, object]:
    """An object as XNAT's JSON has it, with all below it."""
    children: dict[str, list[Node]] = {}
    for child in node.children:
        field = CHILD.get(child.kind, "file" if node.kind == "scans" else "resources/resource")
        children.setdefault(field, []).append(child)
    return {
        "children": [
            {"field": field, "items": [as_item(child) for child in group]} for field, group in children.items() if node.kind != "projects"
        ],
        "meta": {"xsi:type": node.xsi_type, "isHistory": False, "start_date": "Mon Jan 01 00:00:00 UTC 2024"},
        "data_fields": data_fields(node),
    }


def item(request: Request, node: Node) -> Answer:
    """One object as `format` asks: json, or xml (the default)."""
    if request.query.get("format") == "json":
        return Answer.json({"items": [as_item(node)]})
    return Answer.text('<?xml version="1.0" encoding="UTF-8"?>\n' + as_xml(node), type="text/xml;charset=UTF-8")


def as_xml(node: Node) -> str:
    """An object as a document of xnat.xsd, without those below it but scans, assessors and resources."""
    prefix, _, name = node.xsi_type.partition(":")
    name = ELEMENTS.get(node.xsi_type, name.removesuffix("Data"))
    name = name[:2].upper() + name[2:] if name[:2] in ("mr", "ct", "us", "cr", "dx") else name[:1].upper() + name[1:]
    spaces = 'xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:icr="http://icr.ac.uk/icr" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    return f"<{prefix}:{name} {spaces}{_attributes(node)}>{_elements(node)}</{prefix}:{name}>\n"


def _attributes(node: Node) -> str:
    return "".join(f" {key}={quoteattr(str(value))}" for key, value in data_fields(node).items() if key in ATTRIBUTES)


def _elements(node: Node) -> str:
    own = "".join(f"<xnat:{key}>{escape(str(value))}</xnat:{key}>" for key, value in data_fields(node).items() if key not in ATTRIBUTES)
    for kind, outer, inner in (
        ("scans", "scans", "scan"),
        ("assessors", "assessors", "assessor"),
        ("experiments", "experiments", "experiment"),
    ):
        if children := [c for c in node.children if c.kind == kind]:
            own += (
                f"<xnat:{outer}>"
                + "".join(f'<xnat:{inner}{_attributes(c)} xsi:type="{c.xsi_type}">{_elements(c)}</xnat:{inner}>' for c in children)
                + f"</xnat:{outer}>"
            )
    if resources := [c for c in node.children if c.kind == "resources"]:
        tag = "file" if node.kind == "scans" else "resource"
        inside = "".join(f'<xnat:{tag}{_attributes(c)} xsi:type="{c.xsi_type}"/>' for c in resources)
        own += inside if node.kind == "scans" else f"<xnat:resources>{inside}</xnat:resources>"
    return own
