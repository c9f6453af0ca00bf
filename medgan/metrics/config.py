"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medgan.config import setting
from medgan.errors import ConfigError
from medgan.metrics import METRICS


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    metrics: tuple[str, ...] = setting(
        ("fid", "kid"),
        "what to compute, separated by commas: fid, fid50k_full, fid50k, kid; precision, recall, density and coverage, each with _inception, _pixels or "
        "_lpips_vgg16; ms_ssim, ms_ssim_saad2022, cosine_pixels, cosine_inception, ssim_nearest, lpips_alexnet, lpips_vgg16, ppl2_wend (with --bundle)",
    )
    extractor: str = setting("inception-2015-12-05", "network whose features are compared")
    resize: str = setting("tf1", "how images reach the extractor's size", choices=("tf1", "pytorch-fid"))
    n_fake: int = setting(50_000, "synthetic images to use, or fewer where a set holds fewer")
    batch: int = setting(32, "images per forward pass; does not change the result", label="Evaluation batch")
    gpus: int = setting(
        1, "processes that share the images, each with a GPU of its own (without GPUs, some cores); does not change the result"
    )
    intervals: bool = setting(True, "confidence intervals, and of FIDs the real-real floor and FID-infinity")
    seed: int = setting(0, "first seed of the generator's images, and of random subsets")
    pairs: int = setting(
        1000, "random pairs of images of a set for ms_ssim, cosine distances and lpips; half of the images drawn", label="Image pairs"
    )
    picture_size: int = setting(
        0, "side in pixels to which images are resized for ms_ssim, e.g. 176; 0 leaves them", label="Size for MS-SSIM"
    )
    cosine_pairs: str = setting("all", "pairs of the images drawn for cosine distances", choices=("all", "disjoint"))
    center: bool = setting(False, "take the mean image off before cosine distances")

    def __post_init__(self) -> None:
        if self.n_fake < 2:
            raise ConfigError(f"--n-fake {self.n_fake}: a distance needs at least 2 images", fix="--n-fake 50000")
        if self.batch < 1:
            raise ConfigError(f"--batch {self.batch}: at least one image at a time", fix="--batch 32")
        if self.gpus < 1:
            raise ConfigError(f"--gpus {self.gpus}: at least one process", fix="--gpus 1")
        if self.pairs < 1:
            raise ConfigError(f"--pairs {self.pairs}: at least one pair", fix="--pairs 1000")
        if self.picture_size < 0:
            raise ConfigError(f"--picture-size {self.picture_size} is no size", fix="--picture-size 0 leaves images as they are")
        if not self.metrics:
            raise ConfigError("--metrics names no metric", fix=f"some of {', '.join(METRICS.names())}")

    def of_metrics(self) -> dict[str, Any]:
        """The settings that metrics have by the same name."""
        return {name: getattr(self, name) for name in ("pairs", "picture_size", "cosine_pairs", "center", "intervals")}
