"""From which sample size on a figure is stable, which arXiv 2308.02505 leaves open: where its interval is narrower than a stated width, and stays so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure at one sample size.

    Attributes:
        n: Images.
        value: The figure.
        interval: Its ends, or None where it has none.
    """

    n: int
    value: float
    interval: tuple[float, float] | None

    @property
    def width(self) -> float | None:
        """Half the interval as a share of the figure: 0.1 is ± 10 %; None without an interval, or beside a figure of 0."""
        if self.interval is None or self.value == 0:
            return None
        low, high = self.interval
        return (high - low) / 2 / abs(self.value)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """When a figure is stable.

    Attributes:
        n: The smallest size from which on every interval is narrow enough; 0 where none is.
        width: Of the interval at the largest size that has one; None where there is none.
        needed: Where no size is enough, about how many images would be; 0 where that is not known.
        drift: Share of the largest size's figure by which it differs at `n`, which an interval does not show: of an FID mostly its bias.
    """

    n: int
    width: float | None
    needed: int
    drift: float | None


def stability(points: Sequence[Point], *, most: float) -> Stability:
    """The stability of a figure measured at rising sizes.

    Where no size is enough, `needed` follows from the largest one: intervals narrow with the root of the number of images.

    Args:
        points: At least one.
        most: The width that is still narrow.
    """
    stable = 0
    for point in reversed(points):
        if point.width is None or point.width > most:
            break
        stable = point.n
    last = points[-1]
    known = [point for point in points if point.width is not None]
    width = known[-1].width if known else None
    needed = 0
    if not stable and width is not None:
        needed = round(known[-1].n * (width / most) ** 2)
    first = next((point for point in points if point.n == stable), None)
    drift = abs(first.value - last.value) / abs(last.value) if first and last.value else None
    return Stability(n=stable, width=width, needed=needed, drift=drift)
