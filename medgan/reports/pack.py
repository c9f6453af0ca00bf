"""The reporting pack: published checklists as Markdown files, filled with what the run knows; what only its authors know stays marked.

The questions are in our words and follow the order of the published lists, which alone are authoritative:

- CLAIM 2024: A. S. Tejani et al., Radiology: Artificial Intelligence 6(4), e240300.
- MI-CLAIM-GEN: B. Y. Miao et al. 2024, arXiv:2403.02558; by its parts, without its numbering.
- Model card: M. Mitchell et al. 2019, arXiv:1810.03993.
- Datasheet: T. Gebru et al., Communications of the ACM 64(12), 2021, arXiv:1803.09010.
"""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files

import medgan
from medgan.reports.citation import NOT_FOR_DIAGNOSIS
from medgan.reports.facts import facts
from medgan.reports.results import Results

OPEN = "**TODO**"


def documents(results: Results) -> dict[str, str]:
    """The files of the pack by their names; equal folders give equal text."""
    known = facts(results)
    lists = json.loads(files("medgan.reports").joinpath("checklists.json").read_text(encoding="utf-8"))
    return {each["file"]: _document(each, known) for each in lists}


def _document(checklist: dict[str, object], known: dict[str, str]) -> str:
    """One checklist: a section each, a row per item; an item names the topics of `facts` that answer it."""
    lines, answered, asked = [], 0, 0
    for section in checklist["sections"]:  # type: ignore[attr-defined]
        lines += ["", f"## {section['title']}", "", "| | Item | Answer |", "|---|---|---|"]
        for item in section["items"]:
            found = [known[topic] for topic in item.get("topics", ()) if topic in known]
            text = " ".join(_cell(answer) for answer in found)
            missing = item.get("todo", "" if found else "to be written")
            answer = " ".join(filter(None, [text, f"{OPEN} {missing}" if missing else ""]))
            answered, asked = answered + (OPEN not in answer), asked + 1
            lines.append(f"| {item['number']} | {item['asks']} | {answer} |")
    head = [
        f"# {checklist['title']}",
        "",
        f"Filled in by medgan {medgan.__version__} from one run: {answered} of {asked} items; {asked - answered} are yours, marked {OPEN}.",
        f"The questions are in our words, after {checklist['source']}. The published list is what counts: compare before you submit.",
        "",
        NOT_FOR_DIAGNOSIS,
    ]
    return "\n".join([*head, *lines, ""])


def _cell(text: str) -> str:
    """Text of the run inside a table of Markdown: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
