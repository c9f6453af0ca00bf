"""Fréchet Inception distance (Heusel et al. 2017, arXiv 1706.08500), under the two conventions in use.

What the number can and cannot say: docs/explanation/fid.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medgan.metrics.features import Features
from medgan.metrics.frechet import frechet_distance
from medgan.metrics.metric import Result


@dataclass(frozen=True, kw_only=True)
class FID:
    """FID at any number of images: covariances divided by N - 1, as the original code and pytorch-fid do.

    Lower is better; 0 means equal mean and covariance of the features. Biased upwards by about c/N, so two values are comparable only
    at equal numbers of images on both sides.
    """

    needs: ClassVar[str] = "moments"
    higher_is_better: ClassVar[bool] = False
    extractor: ClassVar[str] = "inception-2015-12-05"
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    ddof: ClassVar[int] = 1

    def __call__(self, *, real: Features, fake: Features) -> Result:
        """The distance, and what its covariances were divided by."""
        value = frechet_distance(real=real, fake=fake, ddof=self.ddof)
        return {"value": value, "covariance_divisor": "N - 1" if self.ddof else "N"}


@dataclass(frozen=True, kw_only=True)
class FID50kFull(FID):
    """The official StyleGAN figure: 50,000 fakes against all reals, TensorFlow 1 resize, covariances divided by N.

    With any other number of fakes or resize rule the name would lie; evaluation then reports `fid`, or refuses.
    """

    resize: ClassVar[str] = "tf1"
    n_fake: ClassVar[int] = 50_000
    instead: ClassVar[str] = "fid"
    ddof: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class FID50k(FID50kFull):
    """The official figure of short names: 50,000 fakes against the first 50,000 reals of the set, without mirrored ones.

    With no more than 50,000 reals it is `fid50k_full`.
    """

    needs: ClassVar[str] = "features"
    most_real: ClassVar[int] = 50_000

    def __call__(self, *, real: Features, fake: Features) -> Result:
        """The distance, what its covariances were divided by, and how many reals were used."""
        if real.count > self.most_real:
            assert real.rows is not None
            if self.most_real not in real.kept:
                real.kept[self.most_real] = Features.of(real.rows[: self.most_real])
            real = real.kept[self.most_real]
        return {**super().__call__(real=real, fake=fake), "reals_used": real.count}
