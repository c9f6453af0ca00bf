"""Names to objects: a table of strings in the room's `__init__`, and entry points of other packages.

Nothing is imported until it is asked for, so listing names is instant and torch-free.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from medgan.errors import ConfigError


class Registry:
    """A table of `name -> "module:attribute"`.

    Args:
        kind: What an entry is, in the singular, for messages: `metric`, `recipe`.
        table: The built-in entries.
        group: Entry point group in which other packages add theirs.
    """

    def __init__(self, kind: str, table: Mapping[str, str], group: str) -> None:
        self.kind = kind
        self.group = group
        self._built_in = dict(table)

    def _targets(self) -> dict[str, str]:
        targets = dict(self._built_in)
        for point in entry_points(group=self.group):
            if point.name in targets:
                raise ConfigError(
                    f"the {self.kind} '{point.name}' is registered twice", fix=f"uninstall one of the packages that add {self.group}"
                )
            targets[point.name] = point.value
        return targets

    def names(self) -> list[str]:
        """All known names in the table's order, other packages' last."""
        return list(self._targets())

    def get(self, name: str) -> Any:
        """Import and return the entry called `name`.

        Raises:
            ConfigError: No such name; close names are suggested.
        """
        targets = self._targets()
        if name not in targets:
            close = difflib.get_close_matches(name, targets, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"one of {', '.join(targets)}"
            raise ConfigError(f"unknown {self.kind} '{name}'", fix=hint)
        module, _, attribute = targets[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
