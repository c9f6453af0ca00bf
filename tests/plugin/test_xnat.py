"""The command definition is what the contract says, and the files in the repository are what the code writes."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import medgan
from medgan.config import setting
from plugin.command import ROOT, TASKS, VARIANTS, as_json, command_definition, definitions, dockerfile_with_label, file_name
from plugin.container import RESOURCES
from plugin.lint import form_inputs, lint
from tests.plugin.small import Settings


def label_of(dockerfile: str) -> Any:
    """The label as Docker reads it: an independent reader of the quoting rules (Dockerfile reference, "Escape" and "LABEL")."""
    joined = re.sub(r"\\\n", "", dockerfile)
    [text] = re.findall(r'^LABEL org\.nrg\.commands="((?:[^"\\]|\\.)*)"$', joined, flags=re.MULTILINE)
    return json.loads(re.sub(r"\\(.)", r"\1", text))


def test_three_wrappers_with_one_mounted_object_each():
    wrappers = command_definition(Settings)["xnat"]
    seen = [(w["name"], w["external-inputs"][0]["name"], w["external-inputs"][0]["type"], w["contexts"]) for w in wrappers]
    assert seen == [
        ("project", "project", "Project", ["xnat:projectData"]),
        ("session", "session", "Session", ["xnat:imageSessionData"]),
        ("scan", "scan", "Scan", ["xnat:imageScanData"]),
    ]
    assert all(w["external-inputs"][0]["provides-files-for-command-mount"] == "input" for w in wrappers)
    assert wrappers[0]["external-inputs"][0]["load-children"] is False


def test_every_wrapper_hands_over_the_address_and_the_project():
    for wrapper in command_definition(Settings)["xnat"]:
        fed = {
            d.get("provides-value-for-command-input"): d["derived-from-xnat-object-property"]
            for d in wrapper["derived-inputs"]
            if "parser" not in d and d["type"] == "string"
        }
        assert fed == {"target": "uri", "project-id": "id" if wrapper["name"] == "project" else "project-id"}


def test_every_wrapper_stores_every_output_under_the_object_it_was_launched_on():
    for wrapper in command_definition(Settings)["xnat"]:
        stored = {(h["accepts-command-output"], h["as-a-child-of"], h["type"], h["label"]) for h in wrapper["output-handlers"]}
        assert stored == {(name, wrapper["name"], "Resource", f"MEDGAN_{name.upper()}") for name in RESOURCES}


def test_the_outputs_are_the_folders_the_container_fills():
    assert tuple(TASKS["train"].outputs) == RESOURCES
    assert [(o["mount"], o["path"], o["required"]) for o in command_definition(Settings)["outputs"]] == [
        ("output", n, True) for n in RESOURCES
    ]


def test_a_gpu_is_asked_for_in_each_backends_own_words():
    docker, cluster, cpu = (command_definition(Settings, variant) for variant in ("docker", "cluster", "cpu"))
    assert docker["runtime"] == "nvidia"
    assert "generic-resources" not in docker
    assert cluster["generic-resources"] == {"gpu": "1"}
    assert "runtime" not in cluster
    assert not {"runtime", "generic-resources"} & set(cpu)
    # An image with CUDA refuses to train without a GPU unless it is told to.
    assert [c["environment-variables"].get("MEDGAN_DEVICE") for c in (docker, cluster, cpu)] == [None, None, "cpu"]
    assert len({c["name"] for c in (docker, cluster, cpu)}) == 3  # a site may register all three


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_check_asks_no_backend_for_a_gpu_and_is_the_same_in_all(variant: str):
    command = command_definition(Settings, variant, "check")
    assert command["command-line"] == "check"
    assert not {"runtime", "generic-resources", "gpus", "shm-size"} & set(command)
    assert command == command_definition(Settings, "docker", "check")


def test_a_check_stores_its_report_apart_from_those_of_trainings():
    labels = {task: {h["label"] for w in command_definition(Settings, task=task)["xnat"] for h in w["output-handlers"]} for task in TASKS}
    assert labels["check"] == {"MEDGAN_CHECK"}
    assert not labels["check"] & labels["train"]
    assert {output["path"] for output in command_definition(Settings, task="check")["outputs"]} <= set(RESOURCES)


def test_both_commands_start_on_the_same_three_objects():
    train, check = definitions(Settings)
    assert (train["name"], check["name"]) == ("medgan-train", "medgan-check")
    for key in ("name", "contexts", "external-inputs", "derived-inputs"):
        assert [w[key] for w in train["xnat"]] == [w[key] for w in check["xnat"]]


def test_any_change_changes_the_version():
    # XNAT refuses a command whose name, version and image it has.
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Changed(Settings):
        seed: int = setting(1, "seed of everything")

    assert command_definition(Settings)["version"].startswith(f"{medgan.__version__}+")
    assert command_definition(Changed)["version"] != command_definition(Settings)["version"]


def test_the_form_speaks_the_command_lines_words():
    form = {entry["name"]: entry for entry in form_inputs(command_definition(Settings))}
    assert form["recipe"]["type"] == "select-one"
    assert form["recipe"]["select-values"] == ["ct-liver", "stored"]
    assert form["kimg"] | {"label": ""} == {
        "name": "kimg", "label": "", "description": "thousands of images shown", "type": "number", "required": False,
        "default-value": "10", "replacement-key": "#kimg#",
    }  # fmt: skip
    assert form["window"]["default-value"] == ""
    assert command_definition(Settings)["environment-variables"]["MEDGAN_KIMG"] == "#kimg#"


def test_booleans_become_words_click_reads():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flag:
        seed: bool = setting(True, "a switch")

    [entry] = [entry for entry in form_inputs(command_definition(Flag)) if entry["name"] == "seed"]
    assert (entry["type"], entry["default-value"], entry["true-value"], entry["false-value"]) == ("boolean", "true", "true", "false")


def test_a_label_survives_dockers_quoting():
    command = copy.deepcopy(command_definition(Settings))
    command["description"] = 'a "quote", a back\\slash, a $PRICE, an Ä and # no comment'
    text = dockerfile_with_label("FROM scratch\n", [command, command])
    assert label_of(text) == [command, command]
    assert "\n#" not in text.partition("LABEL")[2]  # Docker would drop such a line as a comment, even here
    assert dockerfile_with_label(text, [command, command]) == text


# --- the repository's own files, from the true settings


@pytest.fixture(scope="module")
def job_settings() -> type:
    from medgan.commands.job import JobConfig

    return JobConfig


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_the_true_definition_is_clean_and_its_form_short(job_settings: type, variant: str, task: str):
    command = command_definition(job_settings, variant, task)
    assert lint(command, job_settings) == []
    assert 5 <= len(form_inputs(command)) <= 12


def test_settings_beside_the_form_are_set_as_variables(job_settings: type):
    command = command_definition(job_settings)
    hidden = {"MEDGAN_ONLY_CLASS": "normal", "MEDGAN_SPLIT": "all", "MEDGAN_PAPER_COMPATIBLE": "true"}
    assert not hidden.keys() & command["environment-variables"].keys()
    command["environment-variables"] |= hidden
    assert lint(command, job_settings) == []


@pytest.mark.parametrize(("task", "name"), [("train", "xnat-command.json"), ("check", "xnat-command.check.json")])
def test_the_file_in_the_repository_is_what_the_code_writes(job_settings: type, task: str, name: str):
    assert file_name(task=task) == name
    written = as_json(command_definition(job_settings, task=task))
    assert (ROOT / name).read_text(encoding="utf-8") == written, "run: python -m plugin.xnat write"


def test_the_dockerfile_carries_both_commands_as_its_label(job_settings: type):
    assert label_of((ROOT / "Dockerfile").read_text(encoding="utf-8")) == definitions(job_settings)


def test_the_dockerfile_builds_with_every_builder():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for newer in ("# syntax=", "RUN --", "COPY --", "<<"):
        assert newer not in text
    assert "\nUSER " not in text


def xnat(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "plugin.xnat", *words], capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_write_and_lint_from_the_command_line(tmp_path: Path, job_settings: type):
    path = tmp_path / "command.json"
    assert json.loads(xnat("write", "--variant", "cluster", "--out", str(path)).stdout)["variant"] == "cluster"
    assert path.read_text() == xnat("write", "--variant", "cluster", "--out", "-").stdout
    assert xnat("lint", str(path)).stdout == '{"problems": 0}\n'
    path.write_text(path.read_text().replace('"generic-resources"', '"generic-resource"'))
    done = xnat("lint", str(path))
    assert done.returncode == 2
    assert "unknown key 'generic-resource'" in done.stderr
    assert done.stderr.splitlines()[-1] == "ERROR E_CONFIG 1 problem in the command file"


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_that_is_no_command(tmp_path: Path, content: str | None, job_settings: type):
    path = tmp_path / "command.json"
    if content is not None:
        path.write_text(content)
    done = xnat("lint", str(path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ERROR E_CONFIG")
