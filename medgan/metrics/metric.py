"""What a metric is: a frozen dataclass of its settings, called with keywords so that the sets cannot be swapped."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

Result = dict[str, Any]
"""`value`, a number, and whatever else is needed to read it, as JSON values."""


class Metric(Protocol):
    """A comparison of two sets. One that needs pretrained weights of its own has a method `prepare`, which loads them before any work.

    Attributes:
        needs: What evaluation must bring: `moments` (`Features`; mean and covariance are enough), `features` (`Features` with every row) or
            `images` (`Pictures`, some images of either set). One that needs a `generator` is called otherwise: see `PPL2WEnd`.
        higher_is_better: Which way is up.
        extractor: The features the name stands for; empty where any will do.
        resize: The resize rule the name stands for; empty where any will do.
        n_fake: The number of synthetic images the name stands for; 0 where any will do.
        instead: The metric that is reported when there are fewer than `n_fake`; empty where `n_fake` is 0.
    """

    needs: ClassVar[str]
    higher_is_better: ClassVar[bool]
    extractor: ClassVar[str]
    resize: ClassVar[str]
    n_fake: ClassVar[int]
    instead: ClassVar[str]

    def __call__(self, *, real: Any, fake: Any) -> Result:
        """The metric's value and what belongs to it."""
        ...
