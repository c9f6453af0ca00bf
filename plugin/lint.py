"""What is wrong with an XNAT command definition: all that XNAT refuses, and all that it accepts in silence and then runs wrongly.

The first kind is `Command.validate()` of Container Service 3.7.3. The second kind costs users most: a misspelt mount name turns the scans into
an empty output folder, an unknown key is dropped, an unknown type becomes a string. Each rule is a sentence with the place it found.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medgan.config import environment_name
from medgan.errors import ConfigError
from plugin.gpus import DEVICE
from plugin.target import SourceConfig

FORM_FIELDS = 12
# varchar(255) in XNAT's database; these three are TEXT.
LONG_STRINGS = ("description", "command-line", "default-value")
# Values that hold one of these make XNAT abort the launch ("illegal string").
ILLEGAL = (";", "&&", "||", "`", "(")

KEYS = {
    "command": "name label description version info-url index hash schema-version image type visibility container-name working-directory "
    "command-line override-entrypoint command-metadata mounts environment-variables ports inputs outputs xnat reserve-memory limit-memory "
    "limit-cpu runtime ipc-mode shm-size network container-labels generic-resources ulimits secrets",
    "mount": "name writable path",
    "input": "name label description type required default-value replacement-key command-line-flag command-line-separator true-value false-value "
    "select-values multiple-delimiter sensitive",
    "output": "name description required mount path",
    "wrapper": "name label description contexts external-inputs derived-inputs output-handlers",
    "external input": "name label description type required matcher default-value replacement-key sensitive user-settable load-children "
    "provides-value-for-command-input provides-files-for-command-mount via-setup-command",
    "derived input": "name label description type required matcher default-value replacement-key sensitive user-settable load-children "
    "provides-value-for-command-input provides-files-for-command-mount via-setup-command derived-from-wrapper-input "
    "derived-from-xnat-object-property multiple parser",
    "handler": "name label description accepts-command-output as-a-child-of type format content tags xsi-type via-wrapup-command",
}
# Kept by XNAT but without the effect their names promise.
USELESS = {
    "gpus": "no backend reads it; use runtime (Docker) or generic-resources (Swarm, Kubernetes)",
    "glob": "XNAT takes every child of the path",
    "auto-remove": "Docker then removes the container with its logs",
}
COMMAND_TYPES = ("docker", "docker-setup", "docker-wrapup")
INPUT_TYPES = ("string", "boolean", "number", "select-one", "select-many", "file")
DELIMITERS = ("quoted-space", "space", "comma", "flag")
WRAPPER_TYPES = (
    "string", "boolean", "number", "Directory", "File[]", "File", "Project", "ProjectAsset", "Subject", "SubjectAssessor", "Session", "Scan",
    "Assessor", "Resource", "Config", "file",
)  # fmt: skip
MOUNTABLE = ("Project", "ProjectAsset", "SubjectAssessor", "Session", "Scan", "Assessor", "Resource", "File")
CONTEXTS = {
    "Project": ("xnat:projectData",),
    "Subject": ("xnat:subjectData",),
    "Session": ("xnat:imageSessionData", "xnat:mrSessionData", "xnat:ctSessionData", "xnat:petSessionData"),
    "Scan": ("xnat:imageScanData", "xnat:mrScanData", "xnat:ctScanData", "xnat:petScanData"),
}
# Child type -> types it can be derived from (resolveDerivedWrapperInput); "string" can come from any object.
PARENTS = {
    "Project": "ProjectAsset Subject Session SubjectAssessor Scan Assessor",
    "ProjectAsset": "Project",
    "Subject": "Project Session SubjectAssessor",
    "Session": "Subject Scan Assessor",
    "SubjectAssessor": "Subject",
    "Scan": "Session Resource",
    "Assessor": "Session",
    "Resource": "Project ProjectAsset Subject Session Scan Assessor SubjectAssessor",
    "File": "Resource",
    "File[]": "Resource",
    "Directory": "Resource",
}
_ALWAYS = "id label xsiType uri directory"
PROPERTIES = {
    "Project": f"{_ALWAYS} title running-title description keywords accessibility aliases",
    "Subject": f"{_ALWAYS} project-id group source initials",
    "Session": f"{_ALWAYS} project-id subject-id visit-id shared-from-project-id datatype-string",
    "Scan": f"{_ALWAYS} integer-id scan-type project-id session-id frames note modality quality scanner scanner-manufacturer scanner-model "
    "scanner-software-version series-description start-time uid datatype-string",
    "Resource": f"{_ALWAYS} integer-id parent-uri files",
    "File": f"{_ALWAYS} name path tags format content size checksum",
}

Problems = Iterator[str]
Object = Mapping[str, Any]


def lint(command: Any, settings: type) -> list[str]:
    """Everything wrong with a command, one sentence each; empty when it may be registered.

    Args:
        command: The parsed JSON object.
        settings: The job's settings class, which says what the container's command line takes.
    """
    if not isinstance(command, dict):
        return ["the file holds no JSON object: POST /xapi/commands takes one command, only the image's label a list of them"]
    shape = list(_shape(command))
    if shape:
        return shape  # the rules below read these lists
    rules = (_keys, _strings, _command, _mounts, _inputs, _form, _outputs, _wrappers, _templates)
    return [problem for rule in rules for problem in rule(command)] + list(_environment(command, settings))


def read_command(path: Path) -> Any:
    """What a command file holds; `lint` says whether it is a command.

    Raises:
        ConfigError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the file is not JSON: {error}") from None


def _shape(command: Object) -> Problems:
    """What XNAT's parser itself refuses."""
    for key in ("mounts", "inputs", "outputs", "xnat", "secrets"):
        if not _objects(command.get(key, [])):
            yield f"{key} is not a list of objects"
    for key in ("environment-variables", "ulimits", "generic-resources", "container-labels", "ports"):
        if not isinstance(command.get(key, {}), dict):
            yield f"{key} is not an object"
    for key in ("shm-size", "reserve-memory", "limit-memory"):
        if command.get(key) is not None and (not isinstance(command[key], int) or isinstance(command[key], bool)):
            yield f"{key} is not a whole number: {command[key]!r}"
    for wrapper in command.get("xnat", []) if _objects(command.get("xnat", [])) else []:
        for key in ("external-inputs", "derived-inputs", "output-handlers"):
            if not _objects(wrapper.get(key, [])):
                yield f"wrapper {wrapper.get('name')!r}: {key} is not a list of objects"
        if not isinstance(wrapper.get("contexts", []), list):
            yield f"wrapper {wrapper.get('name')!r}: contexts is not a list"
    for entry in command.get("inputs", []) if _objects(command.get("inputs", [])) else []:
        if isinstance(entry.get("default-value"), list | dict):
            yield f"input {entry.get('name')!r}: default-value is not one value"


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _parts(command: Object) -> Iterator[tuple[str, str, Object]]:
    """Every object of the definition with its kind and a name for messages."""
    yield "command", "command", command
    for kind, key in (("mount", "mounts"), ("input", "inputs"), ("output", "outputs")):
        for entry in command.get(key, []):
            yield kind, f"{kind} {entry.get('name')!r}", entry
    for wrapper in command.get("xnat", []):
        place = f"wrapper {wrapper.get('name')!r}"
        yield "wrapper", place, wrapper
        for kind, key in (("external input", "external-inputs"), ("derived input", "derived-inputs"), ("handler", "output-handlers")):
            for entry in wrapper.get(key, []):
                yield kind, f"{place}, {kind} {entry.get('name')!r}", entry


def _keys(command: Object) -> Problems:
    for kind, place, entry in _parts(command):
        for key in entry:
            if key in USELESS:
                yield f"{place}: {key} does not do what it says: {USELESS[key]}"
            elif key not in KEYS[kind].split():
                yield f"{place}: unknown key {key!r}, which XNAT drops in silence"


def _strings(command: Object) -> Problems:
    for _, place, entry in _parts(command):
        for key, value in entry.items():
            if key in LONG_STRINGS or key in (
                "mounts",
                "inputs",
                "outputs",
                "xnat",
                "external-inputs",
                "derived-inputs",
                "output-handlers",
            ):
                continue
            texts = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [value]
            if any(isinstance(text, str) and len(text) > 255 for text in texts):
                yield f"{place}: {key} is longer than the 255 characters XNAT's database holds"


def _command(command: Object) -> Problems:
    if not _text(command, "name"):
        yield "command: name is blank"
    image = _text(command, "image")
    tag = image.rpartition("/")[2].partition(":")[2]
    if not image:
        yield "command: image is blank"
    elif not tag:
        yield "command: image has no tag"
    elif tag == "latest":
        yield "command: image has the tag latest, which means another image on every server"
    if command.get("type", "docker") not in COMMAND_TYPES:
        yield f"command: unknown type {command['type']!r}"
    if command.get("visibility", "public") not in ("public", "private", "protected"):
        yield f"command: unknown visibility {command['visibility']!r}"
    for name, value in command.get("ulimits", {}).items():
        if not str(value).strip() or str(value).count(":") > 1:
            yield f"command: ulimit {name} is not n or soft:hard"
    for secret in command.get("secrets", []):
        target = str((secret.get("destination") or {}).get("identifier"))
        if target in ("XNAT_USER", "XNAT_PASS", "XNAT_HOST"):
            yield f"command: a secret may not be put into {target}"
        if target in command.get("environment-variables", {}):
            yield f"command: {target} is both a secret and an environment variable"
    if command.get("container-name"):
        yield "command: container-name is set, so a second run clashes with the first"
    if command.get("override-entrypoint"):
        yield "command: override-entrypoint hands the command line to a shell; leave it false"
    line = _text(command, "command-line")
    if line and (line != shlex.join(line.split()) or "#" in line):
        yield "command: command-line holds more than constant words; options go through environment-variables"


def _mounts(command: Object) -> Problems:
    mounts = command.get("mounts", [])
    yield from _names("mount", mounts)
    fed = {e.get("provides-files-for-command-mount") for w in command.get("xnat", []) for e in _wrapper_inputs(w)}
    for mount in mounts:
        place = f"mount {mount.get('name')!r}"
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", str(mount.get("name"))) or mount.get("name") == "shm":
            yield f"{place}: Kubernetes takes lower-case letters, digits and dashes, and not shm"
        if not _text(mount, "path"):
            yield f"{place}: path is blank"
        elif not _text(mount, "path").startswith("/"):
            yield f"{place}: path is not absolute"
        if mount.get("name") in fed and mount.get("writable"):
            yield f"{place}: a writable input makes XNAT copy everything first"


def _inputs(command: Object) -> Problems:
    inputs = command.get("inputs", [])
    yield from _names("input", inputs, plain=True)
    for entry in inputs:
        place, kind, values = f"input {entry.get('name')!r}", entry.get("type", "string"), entry.get("select-values") or []
        default = str(entry.get("default-value", "") or "")
        if kind not in INPUT_TYPES:
            yield f"{place}: unknown type {kind!r}, which XNAT turns into string in silence"
        if entry.get("multiple-delimiter", "space") not in DELIMITERS:
            yield f"{place}: unknown multiple-delimiter {entry['multiple-delimiter']!r}"
        if str(kind).startswith("select") and not values:
            yield f"{place}: a select without select-values"
        if not str(kind).startswith("select") and values:
            yield f"{place}: select-values, but the type is {kind}"
        if kind == "select-one" and values and default and default not in values:
            yield f"{place}: default {default!r} is not among select-values"
        if re.search(r"\^.*\^", default):
            yield f"{place}: a default between ^ and ^ is a JSONPath into the command, not text"
        if any(mark in text for mark in ILLEGAL for text in [default, *map(str, values)]):
            yield f"{place}: XNAT aborts a launch with a value that holds one of {' '.join(ILLEGAL)}"


def _form(command: Object) -> Problems:
    form = form_inputs(command)
    if len(form) > FORM_FIELDS:
        yield f"command: the form shows {len(form)} fields, more than {FORM_FIELDS}"
    for entry in form:
        for key in ("label", "description"):
            if not _text(entry, key):
                yield f"input {entry.get('name')!r}: a field of the form has no {key}"
        if entry.get("default-value") is None:
            yield f"input {entry.get('name')!r}: a field of the form has no default-value, so the untouched form may not run"


def form_inputs(command: Object) -> list[Object]:
    """Command inputs that no wrapper feeds: XNAT shows them all."""
    fed = {e.get("provides-value-for-command-input") for w in command.get("xnat", []) for e in _wrapper_inputs(w)}
    return [entry for entry in command.get("inputs", []) if entry.get("name") not in fed]


def _outputs(command: Object) -> Problems:
    outputs = command.get("outputs", [])
    yield from _names("output", outputs, plain=True)
    mounts = {mount.get("name"): mount for mount in command.get("mounts", [])}
    paths: set[str] = set()
    for output in outputs:
        place, path = f"output {output.get('name')!r}", _text(output, "path").strip("/")
        if not _text(output, "mount"):
            yield f"{place}: mount is blank"
        elif output["mount"] not in mounts:
            yield f"{place}: there is no mount {output['mount']!r}"
        elif not mounts[output["mount"]].get("writable"):
            yield f"{place}: its mount is not writable"
        if not path or path in paths:
            yield f"{place}: needs a path of its own, for XNAT takes every child of it"
        paths.add(path)


def _wrappers(command: Object) -> Problems:
    wrappers = command.get("xnat", [])
    yield from _names("wrapper", wrappers)
    for wrapper in wrappers:
        place = f"wrapper {wrapper.get('name')!r}"
        for problem in (*_external(wrapper), *_wrapper_input_rules(command, wrapper), *_derived(wrapper), *_handlers(command, wrapper)):
            yield f"{place}: {problem}"


def _external(wrapper: Object) -> Problems:
    if not _text(wrapper, "description"):
        yield "no description; older versions of XNAT hide such a wrapper"
    external = wrapper.get("external-inputs", [])
    if len(external) != 1:
        yield f"{len(external)} external inputs; one is what menus and bulk launches can handle"
    contexts = wrapper.get("contexts") or []
    known = [context for row in CONTEXTS.values() for context in row]
    if not contexts:
        yield "no contexts, so it is shown nowhere"
    for context in contexts:
        fitting = CONTEXTS.get(str(external[0].get("type")) if external else "", ())
        if context not in known:
            yield f"unknown context {context!r}"
        elif external and context not in fitting:
            yield f"context {context!r} does not hold what the external input takes ({external[0].get('type')})"
    for entry in external:
        if entry.get("type") == "Project" and entry.get("load-children") is not False:
            yield "load-children must be false on a project, or XNAT loads all of it into memory at launch"


def _wrapper_input_rules(command: Object, wrapper: Object) -> Problems:
    entries = _wrapper_inputs(wrapper)
    yield from _names("wrapper input", entries, plain=True)
    inputs = {entry.get("name"): entry for entry in command.get("inputs", [])}
    mounts = {entry.get("name") for entry in command.get("mounts", [])}
    for entry in entries:
        place, kind = f"input {entry.get('name')!r}", entry.get("type")
        value, files = entry.get("provides-value-for-command-input"), entry.get("provides-files-for-command-mount")
        if kind not in WRAPPER_TYPES:
            yield f"{place}: unknown type {kind!r}"
        if value is not None and value not in inputs:
            yield f"{place}: provides a value for {value!r}, but there is no such command input"
        elif value is not None and str(inputs[value].get("type", "")).startswith("select"):
            yield f"{place}: feeds the select input {value!r}"
        if files is not None and files not in mounts:
            yield f"{place}: provides files for {files!r}, but there is no such mount: XNAT would make an empty output folder of it"
        if files is not None and kind not in MOUNTABLE:
            yield f"{place}: a {kind} cannot be mounted"
        if entry.get("via-setup-command") and files is None:
            yield f"{place}: via-setup-command without provides-files-for-command-mount"
        if "resources" in str(entry.get("matcher", "")) and not any(e.get("type") == "Resource" for e in entries):
            yield f"{place}: its matcher reads resources, which XNAT loads only where a Resource is derived"


def _derived(wrapper: Object) -> Problems:
    earlier = {entry.get("name"): entry for entry in wrapper.get("external-inputs", [])}
    later = {entry.get("name") for entry in wrapper.get("derived-inputs", [])}
    for entry in wrapper.get("derived-inputs", []):
        place, kind, name = f"input {entry.get('name')!r}", str(entry.get("type")), entry.get("derived-from-wrapper-input")
        files, value = entry.get("provides-files-for-command-mount"), entry.get("provides-value-for-command-input")
        if not name:
            yield f"{place}: derived-from-wrapper-input is blank"
        elif name == entry.get("name"):
            yield f"{place}: derived from itself"
        elif name not in earlier:
            yield f"{place}: derived from {name!r}, which {'comes later' if name in later else 'does not exist'}"
        else:
            yield from _derivation(place, kind, str(earlier[name].get("type")), entry.get("derived-from-xnat-object-property"))
        if entry.get("multiple") and (files is not None or value is None):
            yield f"{place}: multiple works only together with a command input and never with a mount"
        if files is not None and entry.get("required") is False:
            yield f"{place}: mounted but not required; XNAT fails on an empty list when nothing matches"
        earlier[entry.get("name")] = entry


def _derivation(place: str, kind: str, parent: str, prop: Any) -> Problems:
    if kind == "string":
        if parent in PROPERTIES and prop not in PROPERTIES[parent].split():
            yield f"{place}: a {parent} has no property {prop!r}"
    elif kind in WRAPPER_TYPES and parent not in PARENTS.get(kind, "").split():
        yield f"{place}: a {kind} cannot be derived from a {parent}"


def _handlers(command: Object, wrapper: Object) -> Problems:
    handlers = wrapper.get("output-handlers", [])
    yield from _names("handler", handlers, plain=True)
    outputs = [entry.get("name") for entry in command.get("outputs", [])]
    inputs = {entry.get("name"): entry for entry in _wrapper_inputs(wrapper)}
    derived = {entry.get("name") for entry in wrapper.get("derived-inputs", [])}
    before: set[Any] = set()
    for handler in handlers:
        place, output, parent = f"handler {handler.get('name')!r}", handler.get("accepts-command-output"), handler.get("as-a-child-of")
        if not output:
            yield f"{place}: accepts-command-output is blank"
        elif output not in outputs:
            yield f"{place}: there is no output {output!r}"
        if not parent:
            yield f"{place}: as-a-child-of is blank"
        elif parent not in inputs and parent not in before:
            yield f"{place}: there is no parent {parent!r}"
        elif parent in inputs and inputs[parent].get("multiple"):
            yield f"{place}: its parent {parent!r} stands for several objects"
        elif parent in derived and inputs[parent].get("derived-from-xnat-object-property") not in (None, "uri"):
            yield f"{place}: its parent {parent!r} is a property, not an object"
        if handler.get("type", "Resource") not in ("Resource", "Assessor", "Scan"):
            yield f"{place}: unknown type {handler['type']!r}"
        elif handler.get("type", "Resource") == "Resource" and not _text(handler, "label"):
            yield f"{place}: a Resource without label"
        before.add(handler.get("name"))
    accepted = {handler.get("accepts-command-output") for handler in handlers}
    for name in outputs:
        if name not in accepted:
            yield f"no handler takes the output {name!r}"


def _templates(command: Object) -> Problems:
    """Keys that nothing replaces stay literally in the text: `#kimgg#` would reach the container."""
    keys = {entry.get("replacement-key") or f"#{entry.get('name')}#" for entry in command.get("inputs", [])}
    texts: list[tuple[str, Any]] = [
        (f"command, {key}", command.get(key)) for key in ("command-line", "working-directory", "container-name")
    ]
    for key in ("environment-variables", "container-labels"):
        texts += [(f"command, {key}, {name}", text) for name, value in command.get(key, {}).items() for text in (name, value)]
    texts += [(f"{key[:-1]} {entry.get('name')!r}", entry.get("path")) for key in ("mounts", "outputs") for entry in command.get(key, [])]
    yield from _left_over(texts, keys)
    for wrapper in command.get("xnat", []):
        own = {entry.get("replacement-key") or f"#{entry.get('name')}#" for entry in _wrapper_inputs(wrapper)}
        for handler in wrapper.get("output-handlers", []):
            place = f"wrapper {wrapper.get('name')!r}, handler {handler.get('name')!r}"
            yield from _left_over([(place, handler.get(key)) for key in ("label", "format", "content", "description", "tags")], keys | own)
    used = "\n".join(str(text) for _, text in texts)
    for entry in form_inputs(command):
        if (entry.get("replacement-key") or f"#{entry.get('name')}#") not in used:
            yield f"input {entry.get('name')!r}: a field of the form that nothing reads"


def _left_over(texts: Iterable[tuple[str, Any]], keys: set[str]) -> Problems:
    for place, text in texts:
        for key in re.findall(r"#[A-Za-z0-9_-]+#", str(text or "")):
            if key not in keys:
                yield f"{place}: nothing replaces {key}"


def _environment(command: Object, settings: type) -> Problems:
    """Every variable is an option of the container's command line, and every default of the form is that option's own."""
    from plugin.container import program

    words = program(settings, lambda *_, **__: None).commands
    line = _text(command, "command-line")
    if line not in words:
        yield f"command: the container has no command {line!r}, only {', '.join(words)}"
    options = {
        str(parameter.envvar) for name in ([line] if line in words else words) for parameter in words[name].params if parameter.envvar
    }
    fields = (*dataclasses.fields(settings), *dataclasses.fields(SourceConfig))
    defaults = {environment_name(field.name): default_text(field.default) for field in fields}
    replaced = {entry.get("replacement-key") or f"#{entry.get('name')}#": entry for entry in command.get("inputs", [])}
    for name, value in command.get("environment-variables", {}).items():
        if not name.startswith("MEDGAN_"):
            yield f"environment variable {name}: only MEDGAN_ variables are read"
        elif name not in options and name != DEVICE:
            yield f"environment variable {name}: the command line has no such option"
        elif name in defaults and (entry := replaced.get(value)):
            stated = entry.get("default-value", "")
            stated = str(stated).lower() if isinstance(stated, bool) else str(stated)
            if stated not in ("", defaults[name]):
                yield f"input {entry.get('name')!r}: default {stated!r}, but the command line's is {defaults[name]!r}"


def default_text(value: Any) -> str:
    """A default as the text that the environment variable would hold."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(default_text(item) for item in value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _names(kind: str, entries: Iterable[Object], *, plain: bool = False) -> Problems:
    seen = set()
    for entry in entries:
        name = _text(entry, "name")
        if not name:
            yield f"a {kind} has no name"
        elif name in seen:
            yield f"{kind} {name!r} is there twice"
        elif plain and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            yield f"{kind} {name!r}: only letters, digits, _ and - may stand in its name"
        seen.add(name)


def _text(entry: Object, key: str) -> str:
    return str(entry.get(key) or "").strip()


def _wrapper_inputs(wrapper: Object) -> list[Any]:
    return [*wrapper.get("external-inputs", []), *wrapper.get("derived-inputs", [])]
