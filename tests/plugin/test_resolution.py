"""A command, a wrapper and chosen values become the request that XNAT sends, worked out by hand from what its sources say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from medgan.errors import ConfigError
from plugin.command import LEVELS, TASKS, VARIANTS, command_definition, definitions
from plugin.resolution import MASK, Handled, Launch, Server, Target, resolve, shell_words
from tests.plugin.small import Settings

# Every rule of a launch in one command: keys in each place that has templates, each type, blanks, units.
COMMAND: dict[str, Any] = {
    "name": "example",
    "image": "example:1",
    "command-line": "run #flag##plain# '#quoted#' #on# #unknown#",
    "working-directory": "/data/#plain#",
    "mounts": [{"name": "in", "path": "/in"}, {"name": "out", "writable": "true", "path": "/out/#plain#"}],
    "environment-variables": {"NUMBER": "#number#", "BLANK": "[#blank#]", "N_#plain#": "#target#", "XNAT_HOST": "mine", "OFF": "#off#"},
    "container-labels": {"of": "#target#"},
    "inputs": [
        {"name": "plain", "default-value": "p"},
        {"name": "quoted", "default-value": "two words"},
        {"name": "flag", "command-line-flag": "--flag", "command-line-separator": "=", "default-value": "f "},
        {"name": "number", "type": "number", "default-value": 5},
        {"name": "blank"},
        {"name": "on", "type": "boolean", "default-value": True, "true-value": "--yes", "false-value": "--no"},
        {"name": "off", "type": "boolean", "default-value": "False"},
        {"name": "target", "type": "string", "required": True},
    ],
    "outputs": [{"name": "made", "mount": "out", "path": "#plain#/made", "required": True}],
    "xnat": [
        {
            "name": "scan",
            "external-inputs": [{"name": "scan", "type": "Scan", "provides-files-for-command-mount": "in"}],
            "derived-inputs": [
                {"name": "session", "type": "Session", "derived-from-wrapper-input": "scan"},
                {
                    "name": "project",
                    "type": "string",
                    "derived-from-wrapper-input": "session",
                    "derived-from-xnat-object-property": "project-id",
                    "provides-value-for-command-input": "target",
                },
            ],
            "output-handlers": [{"name": "h", "accepts-command-output": "made", "as-a-child-of": "scan", "label": "MADE_#plain#"}],
        }
    ],
    "runtime": "nvidia",
    "shm-size": 1024,
    "reserve-memory": 1,
    "limit-memory": 2,
    "limit-cpu": 1.5,
    "ulimits": {"nofile": "100:200", "core": "0"},
}


def scan(folder: Path, **properties: str) -> Target:
    session = Target(kind="Session", directory=folder, properties={"id": "E1", "project-id": "P1"} | properties)
    return Target(kind="Scan", directory=folder / "SCANS" / "4", properties={"id": "4", "uri": "/scans/4"}, related={"Session": session})


def launched(command: dict[str, Any], values: dict[str, str] | None = None, **server: Any) -> Launch:
    return resolve(command, "scan", scan(Path("/archive/E1")), values or {}, Server(build=Path("/build/1"), **server))


def changed(path: str, value: Any) -> dict[str, Any]:
    command = copy.deepcopy(COMMAND)
    target: Any = command
    *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    for word in way:
        target = target[word]
    target[last] = value
    return command


def test_the_whole_request_worked_out_by_hand():
    site = {"XNAT_HOST": "https://xnat", "XNAT_PASS": "planted-secret"}
    assert launched(COMMAND, user="1000", environment=site, labels={"XNAT_ID": "4"}).body == {
        "Image": "example:1",
        # flag + separator + value as one text, split like a shell; an unknown key stays.
        "Cmd": ["run", "--flag=f", "p", "two words", "--yes", "#unknown#"],
        "Env": ["NUMBER=5", "BLANK=[]", "N_p=P1", "XNAT_HOST=https://xnat", "OFF=False", "XNAT_PASS=planted-secret"],
        "WorkingDir": "/data/p",
        "User": "1000",
        "Labels": {"of": "P1", "XNAT_ID": "4"},
        "HostConfig": {
            "AutoRemove": False,
            "Runtime": "nvidia",
            "IpcMode": "",
            "Binds": ["/archive/E1/SCANS/4:/in:ro", "/build/1/out:/out/p"],
            "MemoryReservation": 1048576,
            "Memory": 2097152,
            "ShmSize": 1024,
            "NanoCpus": 1500000000,
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": 0, "Hard": 0}],
        },
    }


def test_outputs_are_handled_below_their_mount():
    resolved = launched(COMMAND)
    assert resolved.handled == (Handled(output="made", folder=Path("/build/1/out/p/made"), label="MADE_p", parent="scan", required=True),)
    assert resolved.made == (Path("/build/1/out"),)


def test_a_shell_gets_the_whole_line_where_the_entrypoint_is_overridden():
    body = launched(changed("override-entrypoint", True)).body
    assert body["Entrypoint"] == [""]
    assert body["Cmd"] == ["/bin/sh", "-c", "run --flag=f p 'two words' --yes #unknown#"]
    assert "Entrypoint" not in launched(COMMAND).body


def test_a_blank_value_takes_its_flag_with_it():
    assert launched(COMMAND, {"flag": " "}).body["Cmd"][:2] == ["run", "p"]
    assert "NUMBER=" in launched(COMMAND, {"number": ""}).body["Env"]


@pytest.mark.parametrize(("given", "word"), [("true", "--yes"), ("TRUE", "--yes"), ("false", "--no"), ("1", "--no"), ("", None)])
def test_a_boolean_is_true_only_by_that_word(given: str, word: str | None):
    assert launched(COMMAND, {"on": given}).body["Cmd"][4:] == [*filter(None, [word]), "#unknown#"]


def test_a_boolean_without_words_keeps_its_own():
    assert "OFF=yes" in launched(COMMAND, {"off": "yes"}).body["Env"]


def test_an_unknown_type_is_a_string():
    assert "NUMBER=true" in launched(changed("inputs.3.type", "float"), {"number": "true"}).body["Env"]


def test_keys_are_replaced_one_after_another():
    # A value that looks like a later key is replaced as well: XNAT knows no quoting.
    assert "N_5=P1" in launched(COMMAND, {"plain": "#number#"}).body["Env"]


@pytest.mark.parametrize("text", ["a;b", "a&&b", "a||b", "a`b`", "T1 (post)"])
def test_what_xnat_calls_illegal_is_refused(text: str):
    with pytest.raises(ConfigError, match="illegal string"):
        launched(COMMAND, {"plain": text})
    with pytest.raises(ConfigError, match="illegal string"):
        resolve(COMMAND, "scan", scan(Path("/a"), **{"project-id": text}), {}, Server(build=Path("/b")))


@pytest.mark.parametrize("text", ["a|b", "a&b", "a>b", "$HOME", "it's"])
def test_what_xnat_lets_through_goes_through(text: str):
    assert f"NUMBER={text}" in launched(COMMAND, {"number": text}).body["Env"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ('a"b"c', ["abc"]),
        (r"a\ b", ["a b"]),
        ("'' x", ["", "x"]),
        ("$HOME *", ["$HOME", "*"]),
        ("a # b", ["a", "#", "b"]),
    ],
)
def test_a_line_is_split_as_a_shell_splits_it(line: str, words: list[str]):
    assert shell_words(line) == words


def test_a_quote_without_an_end():
    with pytest.raises(ConfigError, match="a quote"):
        shell_words("a 'b")


def test_a_mistyped_mount_becomes_an_empty_output():
    # XNAT's worst silence, kept as it is: the lint finds it.
    body = launched(changed("xnat.0.external-inputs.0.provides-files-for-command-mount", "inn")).body
    assert body["HostConfig"]["Binds"][0] == "/build/1/in:/in"


@pytest.mark.parametrize(
    ("command", "values", "words"),
    [
        (COMMAND, {"plian": "x"}, "no field 'plian'; fix: --set plain="),
        (COMMAND, {"target": "x"}, "no field 'target'"),
        (changed("xnat.0.derived-inputs.1.derived-from-xnat-object-property", "project"), {}, "'project' could not be resolved"),
        (changed("xnat.0.derived-inputs.1.provides-value-for-command-input", None), {}, "'target' is required and has no value"),
        (changed("xnat.0.external-inputs.0.type", "Session"), {}, "starts on a Session, not on a Scan"),
        (changed("mounts.0.writable", True), {}, "a writable input is copied"),
        (changed("inputs.0.default-value", "^$.name^"), {}, "JSONPath"),
        (changed("inputs.0.type", "select-many"), {}, "select-many is XNAT's to resolve"),
        (changed("xnat.0.derived-inputs.0.matcher", "@.id == 1"), {}, "matcher is XNAT's to resolve"),
        (changed("xnat.0.output-handlers.0.type", "Assessor"), {}, "Assessor is XNAT's to make"),
        (changed("secrets", [{}]), {}, "secrets is XNAT's to resolve"),
    ],
)
def test_what_cannot_be_launched(command: dict[str, Any], values: dict[str, str], words: str):
    with pytest.raises(ConfigError) as caught:
        launched(command, values)
    assert words in caught.value.line


def test_an_unknown_wrapper_and_a_colon_in_a_path():
    with pytest.raises(ConfigError, match="no wrapper 'study'"):
        resolve(COMMAND, "study", scan(Path("/a")), {}, Server(build=Path("/b")))
    with pytest.raises(ConfigError, match="colon"):
        resolve(COMMAND, "scan", scan(Path("/a:b")), {}, Server(build=Path("/b")))


def test_secrets_are_masked_wherever_they_stand():
    command = changed("inputs.0.sensitive", True)
    resolved = launched(command, {"plain": "hush-hush"}, environment={"XNAT_PASS": "planted-secret", "XNAT_USER": "alias"})
    shown = json.dumps(resolved.shown())
    assert "planted-secret" not in shown
    assert "hush-hush" not in shown
    assert f"XNAT_PASS={MASK}" in shown
    assert "XNAT_PASS=planted-secret" in resolved.body["Env"]


# --- our own commands


def objects(folder: Path) -> dict[str, Target]:
    session = Target(kind="Session", directory=folder, properties={"id": "E1", "uri": "/e/E1", "project-id": "P1"})
    return {
        "project": Target(kind="Project", directory=folder, properties={"id": "P1", "uri": "/p/P1"}),
        "session": session,
        "scan": Target(kind="Scan", directory=folder, properties={"id": "4", "uri": "/e/E1/s/4"}, related={"Session": session}),
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("level", LEVELS)
def test_each_of_our_wrappers_can_be_launched(variant: str, level: str):
    for command in definitions(Settings, variant):
        resolved = resolve(command, level, objects(Path("/archive"))[level], {}, Server(build=Path("/b")))
        host = resolved.body["HostConfig"]
        assert resolved.body["Cmd"] == [command["command-line"]]
        assert host["Runtime"] == ("nvidia" if variant == "docker" and command["command-line"] == "train" else "")
        assert host["Binds"] == ["/archive:/input:ro", "/b/output:/output"]
        assert "#" not in json.dumps(resolved.body)
        labels = {each.label for each in resolved.handled}
        assert labels == {label for label, _ in TASKS[command["command-line"]].outputs.values()}


def test_the_untouched_form_sets_nothing_but_defaults(monkeypatch: pytest.MonkeyPatch):
    """What the container's own command line reads from the untouched form's variables is JobConfig as it stands."""
    from click.testing import CliRunner

    from medgan.commands.job import JobConfig
    from medgan.config import resolve as settle
    from plugin.container import program

    for task in TASKS:
        command = command_definition(JobConfig, task=task)
        env = dict(
            pair.split("=", 1)
            for pair in resolve(command, "project", objects(Path("/a"))["project"], {}, Server(build=Path("/b"))).body["Env"]
        )
        read: list[Any] = []
        group = program(JobConfig, lambda *_, **__: None)
        inner = group.commands[task]
        inner.callback = lambda read=read, **flags: read.append(settle(JobConfig(), flags))
        assert CliRunner().invoke(group, [task], env=env).exit_code == 0
        assert read == [JobConfig()]
        assert env.keys() >= {"MEDGAN_RECIPE", "MEDGAN_SIZE", "MEDGAN_KIMG"}
