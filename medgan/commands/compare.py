"""`medgan compare`: two evaluations, side by side, where they may be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medgan.errors import DataError, InputError

# click's own error for an unreadable file would show its path.
FILE = click.Path(path_type=Path, readable=False)


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--metrics", default="", help="names, separated by commas; all that both have when not given")
@click.option("--unequal", is_flag=True, help="compare figures of other counts, extractors or real sets too, and say so")
def command(a: Path, b: Path, metrics: str, unequal: bool) -> None:
    """Compare evaluation B with A: two files that `medgan evaluate` wrote.

    FID depends on the numbers of images, so figures of other counts are refused (exit code 65) unless --unequal is given.
    Example: medgan compare baseline/metrics.json ada/metrics.json
    """
    from medgan.metrics.comparison import compare_results

    chosen = [name.strip() for name in metrics.split(",") if name.strip()]
    click.echo(json.dumps(compare_results(_read(a, "A"), _read(b, "B"), metrics=chosen, unequal=unequal), indent=2, allow_nan=False))


def _read(path: Path, which: str) -> dict[str, Any]:
    from medgan.runs import METRICS, METRICS_FORMAT

    if path.is_dir():
        path = path / METRICS
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        # Each figure is a number under its name; anything else was not written by `evaluate`.
        good = all(isinstance(entry["value"], int | float) for entry in result["metrics"].values())
        newer = result.get("format", 0) > METRICS_FORMAT
    except FileNotFoundError:
        raise InputError(f"{which} names no file", fix="a metrics.json that `medgan evaluate` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        good = newer = False
    if newer:
        raise DataError(f"{which} has format {result['format']}, this version reads up to {METRICS_FORMAT}", fix="upgrade medgan")
    if not good:
        raise DataError(f"{which} is no evaluation", fix="a metrics.json that `medgan evaluate` wrote")
    return result
