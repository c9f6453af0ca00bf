"""Answers of readers: one row for each item that a reader judged, from a database or from a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.errors import DataError, InputError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reader's judgement of one item.

    Attributes:
        study: Id of the study.
        reader: Code of the reader, never a name.
        section: Key of the section.
        item: Id of the image, or of the pair.
        answer: `real` or `fake`; of a pair the side taken for real, `a` or `b`.
        likert: 1, surely synthetic, to 5, surely real; None where it is not asked.
        milliseconds: Time from the image's appearance to the answer without pauses; None where not measured.
        changes: How often the answer was changed.
        role: What the reader is.
        years: Of experience; None where not said.
    """

    study: str
    reader: str
    section: str
    item: str
    answer: str
    likert: int | None = None
    milliseconds: int | None = None
    changes: int = 0
    role: str = ""
    years: float | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(Answer))
REQUIRED = COLUMNS[:5]


def read_answers(path: Path) -> list[Answer]:
    """Answers from a CSV file with the columns of `Answer`, of which the first five must be there.

    Raises:
        InputError: No such file.
        DataError: It is no such table, or a value cannot be; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError("--answers names no file that exists", fix="check the path") from None
    except (OSError, UnicodeDecodeError):
        raise DataError("--answers is no readable text file", fix="give the CSV file that the offline page saved") from None
    # A spreadsheet of a country with decimal commas saves with semicolons.
    head = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",")
    missing = [name for name in REQUIRED if name not in (rows.fieldnames or [])]
    if missing:
        raise DataError(f"--answers has no column {', '.join(missing)}", fix="give the CSV file that the offline page saved")
    return [_answer(row, line) for line, row in enumerate(rows, 2)]


def _answer(row: dict[str, Any], line: int) -> Answer:
    given = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if empty := [name for name in REQUIRED if not given[name]]:
        raise DataError(f"line {line} of --answers has no {', '.join(empty)}", fix="leave the file as it was saved")
    try:
        likert, milliseconds = (int(given[name]) if given[name] else None for name in ("likert", "milliseconds"))
        changes = int(given["changes"] or 0)
        years = float(given["years"].replace(",", ".")) if given["years"] else None
    except ValueError:
        raise DataError(f"line {line} of --answers has a number that is none", fix="leave the file as it was saved") from None
    study, reader, section, item, answer = (given[name] for name in REQUIRED)
    return Answer(
        study=study,
        reader=reader,
        section=section,
        item=item,
        answer=answer,
        likert=likert,
        milliseconds=milliseconds,
        changes=changes,
        role=given["role"],
        years=years,
    )


def answers_csv(answers: Sequence[Answer]) -> str:
    """Answers as `read_answers` reads them; what is not known is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in dataclasses.asdict(one).items()} for one in answers)
    return buffer.getvalue()
