"""One pass over a set of images: each is read once, whatever is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np

from medgan.metrics.features import Array, Collector, Extractor, Features
from medgan.metrics.pictures import alike
from medgan.progress import Step
from medgan.ranks import Ranks


def sweep(
    fetch: Callable[[range], Array],
    total: int,
    *,
    shape: tuple[int, ...],
    extractors: Mapping[str, Extractor],
    whole: Container[str],
    every: int,
    keep: Array,
    batch: int,
    ranks: Ranks,
    step: Step,
) -> tuple[dict[str, Features], Array]:
    """Features of each extractor of images number 0 ... total - 1, and on rank 0 those images whose numbers are to be kept, in that order.

    Ranks take batches in turn, and all of them make the same number of steps.

    Args:
        fetch: Gives images by their numbers, (N, C, H, W) uint8.
        total: How many there are.
        shape: (C, H, W) that all of them must have.
        extractors: By name.
        whole: Names of those whose rows are all kept.
        every: Of the others every so manyth row; 0 keeps none.
        keep: Numbers of images to keep.
        batch: Images per forward pass.
        ranks: The processes that share the work.
        step: Called with images done and in all.

    Raises:
        DataError: An image of another shape.
    """
    collectors = {name: Collector(extractor.dim, keep=name in whole, every=every) for name, extractor in extractors.items()}
    mine: list[int] = []
    kept = np.zeros((0, *shape), dtype=np.uint8), np.zeros(0, dtype=np.int64)
    parts = [kept]
    step(0, total)
    for turn in range(0, total, batch * ranks.count):
        start = turn + batch * ranks.rank
        numbers = range(min(start, total), min(start + batch, total))
        if numbers:
            images = alike(fetch(numbers), shape)
            for name, collector in collectors.items():
                collector.add(extractors[name](images), numbers)
            mine += numbers
            wanted = np.isin(numbers, keep)
            parts.append((images[wanted], np.array(numbers)[wanted]))
        step(min(turn + batch * ranks.count, total), total)
    features = {name: collector.finish(ranks, mine) for name, collector in collectors.items()}
    return features, _gathered(parts, keep, ranks)


def _gathered(parts: list[tuple[Array, Array]], keep: Array, ranks: Ranks) -> Array:
    """The images kept on all ranks, in the order of `keep`; only rank 0 has them."""
    import torch

    images, numbers = (torch.from_numpy(np.concatenate([part[i] for part in parts])) for i in (0, 1))
    if ranks.count > 1 and len(keep):
        gathered = ranks.gather(images), ranks.gather(numbers)
        if not ranks.speaks:
            return parts[0][0]
        images, numbers = torch.cat(gathered[0]), torch.cat(gathered[1])
    found: Array = images.numpy()[numbers.numpy().argsort()[keep.argsort().argsort()]]
    return found
