"""Write docs/reference/ from the code: the commands with their options, recipes, presets, metrics, exit codes.

    python scripts/write_reference.py

A test fails while the files say something else than the code.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import click

from medgan import errors
from medgan.cli import COMMANDS, main
from medgan.data import RECIPES
from medgan.data.recipe import OTHER_PRESETS, WINDOW_PRESETS
from medgan.metrics import METRICS
from medgan.training.config import PRESETS, TrainConfig, preset

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
HEAD = "<!-- written by scripts/write_reference.py; edit the code, not this file -->\n\n"


def cli() -> str:
    """Every command with its options, as `--help` has them, and its environment variables."""
    text = HEAD + "# The command line\n\nEvery option also reads the environment variable named beside it; a blank one means the default.\n"
    context = click.Context(main, info_name="medgan")
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        text += f"\n## medgan {name}\n\n"
        text += _command(command, click.Context(command, info_name=f"medgan {name}"))
    return text


def _command(command: click.Command, context: click.Context) -> str:
    text = inspect.cleandoc(command.help or "") + "\n\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            text += f"### {context.info_name} {name}\n\n" + _command(inner, click.Context(inner, info_name=f"{context.info_name} {name}"))
        return text
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    if arguments:
        text += f"Arguments: {' '.join(p.make_metavar(context) for p in arguments)}\n\n"
    options = [p for p in command.params if isinstance(p, click.Option)]
    text += "| option | | variable |\n|---|---|---|\n"
    for option in options:
        names = ", ".join(f"`{word}`" for word in [*option.opts, *option.secondary_opts])
        help = " ".join((option.help or "").split())
        if isinstance(option.type, click.Choice):
            help += f" ({', '.join(filter(None, option.type.choices))})"
        variable = f"`{option.envvar}`" if option.envvar else ""
        text += f"| {names} | {help.replace('|', chr(92) + '|')} | {variable} |\n"
    return text + "\n"


def settings() -> str:
    """Recipes, presets, metrics and exit codes."""
    text = HEAD + "# Recipes, presets, metrics, exit codes\n\n## Recipes\n\n"
    text += "| recipe | what | takes | intensity | plane | size | fit | source |\n|---|---|---|---|---|---|---|---|\n"
    for name in RECIPES.names():
        recipe = RECIPES.get(name)
        grey = f"{recipe.intensity} (L {recipe.level:g} / W {recipe.width:g})" if recipe.width else recipe.intensity
        cells = (recipe.title, ", ".join(recipe.sources), grey, recipe.plane, recipe.size or "as it is", recipe.fit, recipe.source)
        text += f"| `{name}` | {' | '.join(map(str, cells))} |\n"
    text += "\n## Windows\n\n| preset | what |\n|---|---|\n"
    for name, (level, width) in WINDOW_PRESETS.items():
        text += f"| `{name}` | L {level:g} / W {width:g} |\n"
    for name, changes in OTHER_PRESETS.items():
        text += (
            f"| `{name}` | {changes['intensity']}{' ' + '-'.join(map(str, changes['percentiles'])) if 'percentiles' in changes else ''} |\n"
        )
    text += "\n## Training presets\n\nAt 256 px on one GPU; a setting that no preset changes is left out.\n\n"
    rows = {name: preset(name, size=256) for name in PRESETS}
    fields = [f.name for f in dataclasses.fields(TrainConfig) if len({getattr(row, f.name) for row in rows.values()}) > 1]
    text += f"| preset | {' | '.join(fields)} |\n|---|{'---|' * len(fields)}\n"
    for name, row in rows.items():
        text += f"| `{name}` | {' | '.join(_shown(getattr(row, field)) for field in fields)} |\n"
    text += "\n## Metrics\n\n| metric | what |\n|---|---|\n"
    for name in METRICS.names():
        text += f"| `{name}` | {inspect.getdoc(METRICS.get(name)).splitlines()[0]} |\n"  # type: ignore[union-attr]
    text += "\n## Exit codes\n\n| code | error | meaning |\n|---|---|---|\n| 0 | | complete, or stopped at an asked-for budget |\n"
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.MedganError)]
    for cls in sorted(found, key=lambda c: c.exit_code):
        meaning = "any other exception: our bug" if cls is errors.MedganError else (inspect.getdoc(cls) or "").splitlines()[0]
        text += f"| {cls.exit_code} | `{cls.code}` | {meaning} |\n"
    return text


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


PAGES = {"cli.md": cli, "settings.md": settings}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
