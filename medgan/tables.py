"""Tables of results: CSV for machines, LaTeX for a paper."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: "\\" + c for c in "&%$#_{}"}


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header and newlines of one byte."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def figure(value: float) -> str:
    """A figure as papers print it: two decimals from 1 on, four significant digits below."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"


def latex_text(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(_SPECIAL.get(character, character) for character in text).replace("±", r"$\pm$")


def latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, left: int = 1) -> str:
    """A table environment of plain LaTeX, the first columns to the left, the others to the right; no package is needed.

    Args:
        columns: Heads, as text.
        rows: Cells, as text.
        caption: Text below.
        label: For references, as it is.
        left: Columns to the left.
    """
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(columns) - left)}}}", r"\hline"]
    lines += [" & ".join(map(latex_text, columns)) + r" \\", r"\hline"]
    lines += [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
    lines += [r"\hline", r"\end{tabular}", rf"\caption{{{latex_text(caption)}}}", rf"\label{{{label}}}", r"\end{table}", ""]
    return "\n".join(lines)


def csv_table(rows: Sequence[Any], kind: type) -> str:
    """Dataclass instances as CSV, a column per field; what is not known is an empty cell."""
    columns = [one.name for one in dataclasses.fields(kind)]
    return csv_text(columns, [{name: "" if (value := getattr(row, name)) is None else value for name in columns} for row in rows])
