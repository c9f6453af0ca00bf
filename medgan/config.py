"""Settings of a stage: one frozen dataclass becomes command-line flags, environment variables and a JSON file.

Order: defaults < --preset < --config FILE < environment < flags. Defaults and help texts live in the dataclass only.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from medgan.errors import ConfigError

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])


def setting(
    default: Any, help: str, *, choices: Sequence[str] = (), label: str = "", nargs: int = 1, metavar: str | None = None, flag: str = ""
) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        default: Its value when nobody says otherwise. "Off" is 0, "" or (), never None.
        help: One line for `--help`, the form and the reference.
        choices: The allowed words, if it is a choice.
        label: Title of the field in a form; derived from the name if empty.
        nargs: Number of values on the command line (the field is then a tuple).
        metavar: What `--help` shows for the value.
        flag: The option's long name when it differs from the field's.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "choices": tuple(choices), "label": label, "nargs": nargs, "metavar": metavar, "flag": flag},
    )


def environment_name(field: str) -> str:
    """The environment variable of a field: `batch_gpu` -> `MEDGAN_BATCH_GPU`."""
    return f"MEDGAN_{field.upper()}"


def flag_name(field: dataclasses.Field[Any]) -> str:
    """The option of a field: `batch_gpu` -> `--batch-gpu`."""
    return "--" + (field.metadata.get("flag") or field.name.replace("_", "-"))


class _Values(click.ParamType):
    """Several values of one type in one word, separated by commas or blanks: `fid,kid`."""

    name = "values"

    def __init__(self, element: type) -> None:
        self.element = element

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(self.element(item) for item in value)
        try:
            return tuple(self.element(item) for item in value.replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.element.__name__} values", param, ctx)


def _click_type(hint: Any, choices: tuple[str, ...]) -> click.ParamType:
    if choices:
        return click.Choice(choices)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
        origin = typing.get_origin(hint)
    if origin is tuple:
        return _Values(typing.get_args(hint)[0])
    if hint is Path:
        # click's own check of readability would print the path, which may name a patient.
        return click.Path(path_type=Path, readable=False)
    plain: dict[Any, click.ParamType] = {int: click.INT, float: click.FLOAT, bool: click.BOOL}
    return plain.get(hint, click.STRING)


def option_for(cls: type, name: str) -> Callable[[F], F]:
    """The click option of one field of a settings class; unset flags arrive as None, so that presets can be overridden."""
    field = {f.name: f for f in dataclasses.fields(cls)}[name]
    hint = typing.get_type_hints(cls)[name]
    meta = field.metadata
    default = field.default
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    if isinstance(default, bool):
        shown = ("" if default else "no-") + flag_name(field)[2:]
    text = f"{meta['help']}  [default: {shown}]" if shown else meta["help"]
    common: dict[str, Any] = {"default": None, "help": text, "envvar": environment_name(name), "show_envvar": False}
    long = flag_name(field)
    if hint is bool:
        return click.option(f"{long}/--no-{long[2:]}", name, **common)
    kind = _click_type(hint, meta["choices"])
    nargs = meta["nargs"]
    if nargs > 1:
        return click.option(long, name, type=typing.get_args(hint)[0], nargs=nargs, metavar=meta["metavar"], **common)
    return click.option(long, name, type=kind, metavar=meta["metavar"], **common)


def options_from(cls: type, *, leave_out: Sequence[str] = ()) -> Callable[[F], F]:
    """One command-line flag per field of a settings class, in the order of its fields."""

    def decorate(function: F) -> F:
        for field in reversed(dataclasses.fields(cls)):
            if field.name not in leave_out and field.metadata.get("help"):
                function = option_for(cls, field.name)(function)
        return function

    return decorate


def resolve(base: C, flags: Mapping[str, Any], *, config_file: Path | None = None) -> C:
    """`base` with the values of a JSON file and of the given flags (None means "not given") on top.

    Raises:
        ConfigError: The file has an unknown field, or a value fails the class's own checks.
    """
    changes: dict[str, Any] = {}
    if config_file is not None:
        changes.update(read_settings(config_file, type(base)))
    context = click.get_current_context(silent=True)
    for field in dataclasses.fields(base):  # type: ignore[arg-type]
        value = flags.get(field.name)
        # A variable of blanks means the default; an empty list on the command line means none.
        blank = value == () and context is not None and context.get_parameter_source(field.name) is ParameterSource.ENVIRONMENT
        if value is not None and not blank:
            changes[field.name] = value
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def read_settings(path: Path, cls: type) -> dict[str, Any]:
    """The settings in a JSON file, each of a name, type and choice that the settings class knows.

    Raises:
        ConfigError: The file is no JSON object, or a setting is unknown or not what it should be.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise ConfigError("--config is not a readable JSON file", fix="give the config.json of a run folder") from None
    if not isinstance(values, dict):
        raise ConfigError("--config holds no JSON object", fix="give the config.json of a run folder")
    return check_settings(values, cls)


def check_settings(values: Mapping[str, Any], cls: type, *, called: str = "--config") -> dict[str, Any]:
    """Settings from JSON, each of a name, type and choice that the settings class knows.

    Args:
        values: Name -> JSON value.
        cls: The settings class.
        called: Where they come from, for messages.

    Raises:
        ConfigError: A setting is unknown, all such are listed, or not what it should be.
    """
    known = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"{called} has unknown settings: {', '.join(unknown)}", fix="remove them, or use the medgan version that wrote the file"
        )
    hints = typing.get_type_hints(cls)
    return {name: _checked(known[name], hints[name], value, called) for name, value in values.items()}


def words_of(settings: Mapping[str, Any], cls: type) -> list[str]:
    """Settings as words of a command line, from which `options_from` reads the same settings again."""
    words = []
    for field in dataclasses.fields(cls):
        if field.name not in settings:
            continue
        value, flag = settings[field.name], flag_name(field)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple) and field.metadata["nargs"] > 1:
            words += [flag, *map(str, value)]
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return words


def parse_settings(words: Sequence[str], cls: type, *, called: str = "--set") -> dict[str, Any]:
    """Settings from words NAME=VALUE, the names as of flags or of fields.

    Raises:
        ConfigError: A word is no NAME=VALUE, names are unknown (all are listed), or a value is not of its type.
    """
    pairs = {name.strip().removeprefix("--").replace("-", "_"): value for name, _, value in (word.partition("=") for word in words)}
    known = {field.name: field for field in dataclasses.fields(cls) if field.metadata.get("help")}
    unknown = sorted(set(pairs) - set(known))
    if unknown or any("=" not in word for word in words):
        raise ConfigError(f"{called} has unknown settings: {', '.join(unknown) or 'a word without ='}", fix=f"{called} kimg=1000")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, text in pairs.items():
        kind = click.BOOL if hints[name] is bool else _click_type(hints[name], known[name].metadata["choices"])
        try:
            values[name] = kind.convert(text, None, None)
        except click.UsageError as error:
            raise ConfigError(f"{called} {name}: {error.format_message()}") from None
    return values


def _checked(field: dataclasses.Field[Any], hint: Any, value: Any, called: str) -> Any:
    """A value of a JSON file in the type of its field."""
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(f"{called}: {field.name} {value!r} is not one of {', '.join(filter(None, choices))}")
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if isinstance(value, list | tuple) and all(_is_a(element, item) for item in value):
            return tuple(element(item) for item in value)
    elif _is_a(hint, value):
        return hint(value)
    raise ConfigError(f"{called}: {field.name} {value!r} is not of its type", fix="give the config.json of a run folder")


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def to_json(config: Any) -> dict[str, Any]:
    """A settings object as JSON values (tuples become lists, paths text)."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Path):
            value = str(value)
        result[field.name] = value
    return result
