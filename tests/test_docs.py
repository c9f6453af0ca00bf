"""Documents that repeat what code or settings say are in step with them."""

from __future__ import annotations

import re
import tomllib

import numpy as np
import pytest
import torch
import yaml

import medgan
from medgan.data import RECIPES
from medgan.data.recipe import OTHER_PRESETS, WINDOW_PRESETS
from medgan.data.windowing import Window
from medgan.reports.citation import REFERENCES, citation_text
from tests.conftest import ROOT


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


def test_every_dependency_has_its_reason_written_down():
    decision = read("docs/decisions/0002-dependencies.md")
    documented = {name for row in re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", decision, re.M) for name in row.split(", ")}
    extras = project()["optional-dependencies"]
    asked_for = project()["dependencies"] + [
        line for extra in ("cluster", "export", "pdf", "slurm", "tensorboard", "readers") for line in extras[extra]
    ]
    wanted = {re.split(r"[<>=!~\[]", line)[0].strip() for line in asked_for}
    assert {name.lower() for name in documented} - {"package", "---"} == {name.lower() for name in wanted}


def test_decisions_have_numbers_of_their_own_and_the_three_parts():
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [path.name[:4] for path in files]
    assert len(set(numbers)) == len(numbers)
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]} "), path.name
        for part in ("## Context", "## Choice", "## Consequence"):
            assert part in text, f"{path.name} lacks {part}"


def test_the_citation_file_says_what_the_report_says():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == medgan.__version__
    assert citation["license"] == project()["license"]
    identifiers = [entry["identifiers"][0]["value"] for entry in citation["references"]]
    assert identifiers == [re.search(r"arXiv:\d{4}\.\d{5}", reference.text)[0] for reference in REFERENCES]
    for entry, reference in zip(citation["references"], REFERENCES, strict=True):
        assert entry["title"] in reference.text
        families = [author["family-names"] for author in entry["authors"] if "family-names" in author]
        assert [name for name in families if name not in reference.text] == []
    assert all(reference.text in citation_text("1.2.3") for reference in REFERENCES)


def test_the_changelog_has_a_section_for_what_comes_next():
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.M)
    assert headings[0] == "[Unreleased]"
    assert len(headings) == len(set(headings))


def test_hooks_are_local_and_their_tools_are_developers_dependencies():
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert {repo["repo"] for repo in hooks} == {"local"}
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for repo in hooks for hook in repo["hooks"]}
    packages = {"ruff": "ruff", "mypy": "mypy", "lint-imports": "import-linter", "python": ""}
    wanted = " ".join(project()["optional-dependencies"]["dev"])
    assert all(packages[tool] in wanted for tool in tools)


def windows_rows() -> list[tuple[float, float]]:
    rows = re.findall(r"^\| (−?\d+) \| [^|]+ \| ([\d.]+) \|$", read("docs/explanation/windows.md"), re.M)
    return [(float(hu.replace("−", "-")), float(grey)) for hu, grey in rows]


@pytest.mark.parametrize(("hu", "grey"), windows_rows())
def test_the_greys_of_the_explanation_are_the_codes(hu, grey):
    assert 255 * Window(50, 350)(torch.tensor(hu, dtype=torch.float64)).item() == pytest.approx(grey, abs=0.051)


def test_windows_of_the_explanation_are_the_presets():
    text = read("docs/explanation/windows.md").replace("−", "-")
    named = {(float(level), float(width)) for level, width in re.findall(r"L (-?\d+) / W\s+(\d+)", text)}
    assert named == set(WINDOW_PRESETS.values())
    assert [name for name in (*WINDOW_PRESETS, *OTHER_PRESETS) if f"`{name}`" not in text] == []
    assert len(windows_rows()) == 8


@pytest.mark.parametrize("page", ["how-to/datasets.md", "reference/settings.md"])
def test_every_recipe_is_documented(page):
    text = read(f"docs/{page}")
    assert [name for name in RECIPES.names() if f"| `{name}` |" not in text] == []


def test_the_papers_counts_of_the_how_to_are_the_recipes():
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| ([\d,]+) \|$", read("docs/how-to/datasets.md"), re.M))
    counts = {name: f"{recipe.paper_images:,}" for name in RECIPES.names() if (recipe := RECIPES.get(name)).paper_images}
    assert rows == counts


def test_the_lesion_of_the_explanation_is_as_visible_as_it_says():
    steps = [20 * 255 / width for width in (2000, 350)]
    assert np.round(steps).tolist() == [3, 15]


def test_the_reference_says_what_the_code_says():
    import runpy

    pages = runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))["PAGES"]
    for name, write in pages.items():
        assert read(f"docs/reference/{name}") == write(), f"docs/reference/{name} is out of step: python scripts/write_reference.py"


def test_every_command_has_a_section_and_every_link_a_target():
    from medgan.cli import COMMANDS

    reference = read("docs/reference/cli.md")
    assert [name for name in COMMANDS if f"## medgan {name}\n" not in reference] == []
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} points to {target}"


def test_the_version_is_the_same_everywhere():
    tag = f"medgan:{medgan.__version__}"
    for name in ("README.md", "Dockerfile", "docs/how-to/dgx.md", "docs/how-to/xnat.md"):
        assert tag in read(name), name
