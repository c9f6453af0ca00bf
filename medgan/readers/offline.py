"""A study as a folder that opens by double click, from a USB stick, without a server: answers stay in the browser and leave as a CSV file."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from medgan import runs
from medgan.readers.pages import MOST_YEARS, PAGES, STATIC, questions
from medgan.readers.study import IMAGES, Study, whole

PAGE = "index.html"
SCRIPTS = ("icon.svg", "readers.css", "viewer.js", "offline.js")


def write_offline(study: Study, out: Path) -> None:
    """Write the folder, whole or not at all.

    Nothing in it tells real from synthetic: the pictures and the order of a reader are those of the web application.

    Args:
        study: What is shown.
        out: The folder; must not exist, or be empty.

    Raises:
        ConfigError: `out` holds something.
    """
    state = {
        **questions(study.design),
        "study": study.id,
        "sections": [dataclasses.asdict(section) for section in study.sections],
        "mostYears": MOST_YEARS,
    }
    values = {"study": study, "total": study.total, "root": "", "offline": True, "state": state, "given": {}}
    with whole(out) as folder:
        # Copies keep the times of the files, which say nothing.
        shutil.copytree(study.folder / IMAGES, folder / IMAGES)
        (folder / STATIC.name).mkdir()
        for name in SCRIPTS:
            shutil.copyfile(STATIC / name, folder / STATIC.name / name)
        runs.write_text(folder / PAGE, PAGES.get_template("offline.html.j2").render(**values))
