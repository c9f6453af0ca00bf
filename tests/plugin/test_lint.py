"""Each fault planted into a good command is found, and named for what it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from plugin.command import TASKS, VARIANTS, command_definition
from plugin.lint import form_inputs, lint
from tests.plugin.small import Settings

Command = dict[str, Any]


def command() -> Command:
    return copy.deepcopy(command_definition(Settings))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_what_the_code_writes_is_clean(variant: str, task: str):
    assert lint(command_definition(Settings, variant, task), Settings) == []


def put(path: str, value: Any) -> Callable[[Command], None]:
    """A fault: set the value at a path like `xnat.0.external-inputs.0.type`."""

    def plant(target: Any) -> None:
        *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
        for word in way:
            target = target[word]
        target[last] = value

    return plant


def drop(path: str) -> Callable[[Command], None]:
    def plant(target: Any) -> None:
        *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
        for word in way:
            target = target[word]
        del target[last]

    return plant


def double(path: str) -> Callable[[Command], None]:
    def plant(target: Any) -> None:
        for word in path.split("."):
            target = target[int(word) if word.isdigit() else word]
        target.append(copy.deepcopy(target[0]))

    return plant


def derive(**values: Any) -> Callable[[Command], None]:
    """A fault: a further derived input of the scan wrapper."""
    entry = {"name": "more", "type": "Session", "derived-from-wrapper-input": "scan"}
    return lambda target: target["xnat"][2]["derived-inputs"].append(
        entry | {key.replace("_", "-"): value for key, value in values.items()}
    )


def secret(identifier: str) -> Callable[[Command], None]:
    source = {"type": "system-property", "identifier": "a"}
    return put("secrets", [{"source": source, "destination": {"type": "environment-variable", "identifier": identifier}}])


# Input 0 is the select `recipe`, 1 `window`, 2 `sessions`, 3 `scan_types`, 4 `kimg`; the last two are `target` and `project-id`.
REFUSED_BY_XNAT = [
    (put("name", " "), "command: name is blank"),
    (put("image", ""), "image is blank"),
    (put("image", "host:5000/medgan"), "image has no tag"),
    (put("type", "podman"), "unknown type 'podman'"),
    (put("visibility", "Public"), "unknown visibility"),
    (put("ulimits", {"nofile": ""}), "ulimit nofile"),
    (put("ulimits", {"nofile": "1:2:3"}), "ulimit nofile"),
    (secret("XNAT_PASS"), "may not be put into XNAT_PASS"),
    (secret("MEDGAN_KIMG"), "both a secret and an environment variable"),
    (put("mounts.0.name", ""), "a mount has no name"),
    (put("mounts.0.path", ""), "path is blank"),
    (double("mounts"), "mount 'input' is there twice"),
    (put("inputs.4.name", ""), "a input has no name"),
    (put("inputs.4.name", "k img"), "only letters, digits, _ and -"),
    (double("inputs"), "input 'recipe' is there twice"),
    (put("inputs.4.multiple-delimiter", "tab"), "unknown multiple-delimiter"),
    (drop("inputs.0.select-values"), "a select without select-values"),
    (put("inputs.4.select-values", ["1"]), "select-values, but the type is number"),
    (put("inputs.0.default-value", "ct-lung"), "default 'ct-lung' is not among select-values"),
    (put("outputs.0.name", ""), "a output has no name"),
    (put("outputs.0.name", "re port"), "only letters, digits, _ and -"),
    (double("outputs"), "output 'report' is there twice"),
    (put("outputs.0.mount", ""), "mount is blank"),
    (put("outputs.0.mount", "outptu"), "there is no mount 'outptu'"),
    (put("xnat.0.name", ""), "a wrapper has no name"),
    (put("xnat.1.name", "project"), "wrapper 'project' is there twice"),
    (put("xnat.0.derived-inputs.0.name", "project"), "wrapper input 'project' is there twice"),
    (put("xnat.0.derived-inputs.0.name", "a.b"), "only letters, digits, _ and -"),
    (put("xnat.0.external-inputs.0.type", "Projekt"), "unknown type 'Projekt'"),
    (put("xnat.2.derived-inputs.1.via-setup-command", "a/b:1"), "via-setup-command without"),
    (put("xnat.0.derived-inputs.0.provides-value-for-command-input", "recipe"), "feeds the select input 'recipe'"),
    (put("xnat.0.derived-inputs.0.derived-from-wrapper-input", ""), "derived-from-wrapper-input is blank"),
    (put("xnat.0.derived-inputs.0.derived-from-wrapper-input", "study"), "'study', which does not exist"),
    (put("xnat.2.derived-inputs.0.derived-from-wrapper-input", "scan-session"), "'scan-session', which comes later"),
    (put("xnat.0.derived-inputs.0.derived-from-wrapper-input", "project-uri"), "derived from itself"),
    (derive(multiple=True), "multiple works only together"),
    (derive(multiple=True, provides_value_for_command_input="target", provides_files_for_command_mount="input"), "multiple works only together"),
    (put("xnat.0.output-handlers.0.name", ""), "a handler has no name"),
    (put("xnat.0.output-handlers.0.accepts-command-output", ""), "accepts-command-output is blank"),
    (put("xnat.0.output-handlers.0.as-a-child-of", ""), "as-a-child-of is blank"),
    (put("xnat.0.output-handlers.1.name", "report-resource"), "handler 'report-resource' is there twice"),
    (put("xnat.0.output-handlers.0.name", "a b"), "only letters, digits, _ and -"),
    (put("xnat.0.output-handlers.0.accepts-command-output", "pictures"), "there is no output 'pictures'"),
    (put("xnat.0.output-handlers.0.as-a-child-of", "study"), "there is no parent 'study'"),
    (put("xnat.0.external-inputs.0.multiple", True), "stands for several objects"),
    (put("xnat.0.output-handlers.0.as-a-child-of", "project-id"), "is a property, not an object"),
    (put("xnat.0.output-handlers.0.type", "Subject"), "unknown type 'Subject'"),
    (put("xnat.0.output-handlers.0.label", ""), "a Resource without label"),
    (drop("xnat.0.output-handlers.4"), "no handler takes the output 'checkpoint'"),
    (put("shm-size", "2g"), "shm-size is not a whole number"),
    (put("inputs.4.default-value", ["1"]), "default-value is not one value"),
    (put("inputs", {"name": "x"}), "inputs is not a list"),
    (put("environment-variables", ["A=1"]), "environment-variables is not an object"),
    (put("xnat.0.contexts", "site"), "contexts is not a list"),
    (put("xnat.0.output-handlers", "report"), "output-handlers is not a list"),
]  # fmt: skip

TAKEN_IN_SILENCE = [
    (put("inputs.4.type", "float"), "unknown type 'float', which XNAT turns into string"),
    (put("inputs.4.user-settable", True), "input 'kimg': unknown key 'user-settable'"),
    (put("constraints", []), "unknown key 'constraints'"),
    (put("xnat.0.external-inputs.0.provides-file-for-command-mount", "input"), "unknown key 'provides-file-for-command-mount'"),
    (put("gpus", "all"), "gpus does not do what it says"),
    (put("outputs.0.glob", "*.html"), "glob does not do what it says"),
    (put("auto-remove", True), "auto-remove does not do what it says"),
    (put("xnat.0.derived-inputs.0.provides-value-for-command-input", "tarhet"), "there is no such command input"),
    (put("xnat.0.external-inputs.0.provides-files-for-command-mount", "inputs"), "there is no such mount"),
    (put("xnat.0.external-inputs.0.type", "Subject"), "a Subject cannot be mounted"),
    (put("xnat.0.contexts", ["xnat:projectdata"]), "unknown context"),
    (put("xnat.0.contexts", ["xnat:imageScanData"]), "does not hold what the external input takes"),
    (put("xnat.0.contexts", []), "no contexts"),
    (put("environment-variables.MEDGAN_KIMG", "#kimgg#"), "nothing replaces #kimgg#"),
    (put("xnat.0.output-handlers.0.label", "MEDGAN_#run#"), "nothing replaces #run#"),
    (put("outputs.0.path", "report/#name#"), "nothing replaces #name#"),
    (put("inputs.4.label", "x" * 256), "label is longer than the 255 characters"),
    (put("xnat.0.contexts.0", "xnat:" + "x" * 256), "contexts is longer than the 255 characters"),
    (put("environment-variables.MEDGAN_KIMG", "x" * 256), "environment-variables is longer than"),
    (put("mounts.0.name", "Input"), "Kubernetes takes lower-case letters"),
    (put("mounts.1.name", "shm"), "Kubernetes takes lower-case letters"),
    (put("mounts.0.path", "input"), "path is not absolute"),
    (put("mounts.0.writable", True), "a writable input makes XNAT copy everything"),
    (put("mounts.1.writable", False), "its mount is not writable"),
    (put("outputs.1.path", "report"), "needs a path of its own"),
    (put("environment-variables.MEDGAN_KIMGS", "5"), "MEDGAN_KIMGS: the command line has no such option"),
    (put("environment-variables.KIMG", "#kimg#"), "only MEDGAN_ variables are read"),
    (put("inputs.4.default-value", "25000"), "default '25000', but the command line's is '10'"),
    (drop("environment-variables.MEDGAN_KIMG"), "input 'kimg': a field of the form that nothing reads"),
    (drop("inputs.4.default-value"), "has no default-value"),
    (drop("inputs.4.label"), "has no label"),
    (drop("inputs.4.description"), "has no description"),
    (put("inputs.4.default-value", "10; ls"), "XNAT aborts a launch"),
    (put("inputs.0.select-values.1", "T1 (post)"), "XNAT aborts a launch"),
    (put("override-entrypoint", True), "override-entrypoint hands the command line to a shell"),
    (put("command-line", "train --kimg #kimg#"), "more than constant words"),
    (put("command-line", "train && ls"), "more than constant words"),
    (put("command-line", "trian"), "the container has no command 'trian', only train, check"),
    (put("command-line", ""), "the container has no command ''"),
    (put("inputs.2.default-value", "^$.name^"), "is a JSONPath into the command"),
    (put("container-name", "medgan"), "a second run clashes"),
    (put("image", "medgan:latest"), "the tag latest"),
    (drop("xnat.0.external-inputs.0.load-children"), "load-children must be false"),
    (double("xnat.0.external-inputs"), "2 external inputs"),
    (drop("xnat.0.description"), "no description"),
    (put("xnat.1.external-inputs.0.matcher", "'DICOM' in @.resources[*].label"), "its matcher reads resources"),
    (put("xnat.1.derived-inputs.0.derived-from-xnat-object-property", "project"), "a Session has no property 'project'"),
    (derive(type="Subject", derived_from_wrapper_input="scan"), "a Subject cannot be derived from a Scan"),
    (derive(provides_files_for_command_mount="input", required=False), "mounted but not required"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "words"), REFUSED_BY_XNAT + TAKEN_IN_SILENCE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_fault_is_found(plant: Callable[[Command], None], words: str):
    faulty = command()
    plant(faulty)
    problems = lint(faulty, Settings)
    assert any(words in problem for problem in problems), problems


def test_a_containers_own_option_may_be_a_variable_beside_the_form():
    extended = command()
    extended["environment-variables"] |= {"MEDGAN_QUIET": "true", "MEDGAN_RUN_NAME": "mine"}
    assert lint(extended, Settings) == []


def test_more_than_twelve_fields_are_too_many():
    faulty = command()
    for number in range(13 - len(form_inputs(faulty))):
        faulty["inputs"].append(faulty["inputs"][2] | {"name": f"more{number}", "replacement-key": "#kimg#"})
    assert "command: the form shows 13 fields, more than 12" in lint(faulty, Settings)


@pytest.mark.parametrize("value", [[command_definition(Settings)], "text", None])
def test_only_one_object_is_a_command(value: Any):
    assert "no JSON object" in lint(value, Settings)[0]


def test_a_definition_survives_json():
    assert lint(json.loads(json.dumps(command())), Settings) == []
