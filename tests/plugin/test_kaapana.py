"""processing-container.json has what Kaapana's developer guide asks for, and its variables are the container's own options."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from plugin.command import ROOT, TASKS
from plugin.container import program
from plugin.kaapana import FILE, as_json, command, processing_container
from tests.plugin.small import Settings


@pytest.fixture(scope="module")
def job_settings() -> type:
    from medgan.commands.job import JobConfig

    return JobConfig


def test_the_file_in_the_repository_is_what_the_code_writes(job_settings: type):
    assert (ROOT / FILE).read_text(encoding="utf-8") == as_json(job_settings), "run: python -m plugin.kaapana"


def test_every_template_has_the_fields_that_kaapana_requires(job_settings: type):
    made = json.loads(as_json(job_settings))
    assert {"name", "description", "api_version", "templates"} == made.keys()
    assert [template["identifier"] for template in made["templates"]] == list(TASKS)
    for template in made["templates"]:
        assert {"identifier", "description", "env", "inputs", "outputs", "command"} <= template.keys()
        assert all(isinstance(word, str) for word in template["command"])
        for channel in (*template["inputs"], *template["outputs"]):
            assert channel.keys() == {"name", "mounted_path", "description"}
            assert channel["mounted_path"].startswith("/")
        for variable in template["env"]:
            assert variable.keys() <= {"name", "value", "description", "choices"}
            assert all(isinstance(variable[key], str) for key in ("name", "value", "description"))
            assert variable["value"] in variable.get("choices", [variable["value"]])
        names = [variable["name"] for variable in template["env"]]
        assert len(names) == len(set(names)) > 20


def test_only_the_training_asks_for_a_gpu():
    train, check = processing_container(Settings)["templates"]
    assert train["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "resources" not in check


@pytest.mark.parametrize("task", TASKS)
def test_its_variables_are_options_and_its_values_their_defaults(job_settings: type, task: str):
    [template] = [each for each in processing_container(job_settings)["templates"] if each["identifier"] == task]
    group = program(job_settings, lambda *_, **__: None)
    options = group.commands[task]
    assert {variable["name"] for variable in template["env"]} <= {p.envvar for p in options.params if isinstance(p, click.Option)}
    seen: list[object] = []
    options.callback = lambda **flags: seen.append(flags)
    env = {variable["name"]: variable["value"] for variable in template["env"]}
    assert CliRunner().invoke(group, [task], env=env).exit_code == 0
    from medgan.config import resolve

    assert resolve(job_settings(), seen[0]) == job_settings()  # type: ignore[arg-type]


def test_write(tmp_path, job_settings: type):
    assert CliRunner().invoke(command, ["--out", str(tmp_path / "p.json")]).output == '{"written": "p.json"}\n'
    assert (tmp_path / "p.json").read_text() == CliRunner().invoke(command, ["--out", "-"]).output == as_json(job_settings)
