"""What the web application and the offline page show alike: the templates, and what the viewer's script has to know. No web framework is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from medgan.readers.design import LIKERT, Design

ROLES = (
    "Radiologist",
    "Radiology resident",
    "Other physician",
    "Radiographer",
    "Medical physicist",
    "Engineer or scientist",
    "Student",
    "Other",
)
MOST_YEARS = 70

STATIC = Path(__file__).parent / "static"

PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
PAGES.globals |= {"labels": LIKERT, "roles": ROLES, "most_years": MOST_YEARS}


def questions(design: Design) -> dict[str, Any]:
    """What the script of the viewer has to know of a design."""
    return {
        "kind": design.kind,
        "answers": list(design.answers),
        "likert": [str(value) for value in LIKERT] if design.likert else [],
        "goBack": design.go_back,
    }
