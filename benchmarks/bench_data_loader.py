"""How many images a second does the training loader give, decoded as needed, from memory-mapped decoded images, and prefetched? JSON lines, a minute.

    python benchmarks/bench_data_loader.py [--size 512] [--images 2000] [--batch 32] [--repeats 3] [--step-seconds 0.1]

`needed` is what a training step uses: batch / --step-seconds (e.g. 0.24 for 7.5 s/kimg at batch 32). `waited` is the part of a step of that length that
the loop waits for its batch. Sides are measured in turn; the first round is a warm-up. --tiny is for tests.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rows import in_turn, rounded, row, show

from medgan import machine
from medgan.data import dataset as datasets
from medgan.data.dataset import open_dataset, write_dataset
from medgan.training.batches import Batches


def pictures(count: int, size: int):
    """Smooth pictures with noise: about as compressible as windowed CT."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        pixels = np.clip(np.asarray(coarse).astype(int) + rng.integers(-4, 5, (size, size)), 0, 255).astype(np.uint8)
        pixels[: size // 5] = 0
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        yield buffer.getvalue()


def rate(batches: Batches, batch: int, count: int, step_seconds: float) -> tuple[float, float]:
    """Images per second, and seconds waited per batch while a step of `step_seconds` runs between."""
    device, waited = batches.device, 0.0
    batches.next(batch)
    started = time.perf_counter()
    for _ in range(count):
        before = time.perf_counter()
        batches.next(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        waited += time.perf_counter() - before
        time.sleep(step_seconds)
    return count * batch / (time.perf_counter() - started), waited / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step-seconds", type=float, default=0.1)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.images, args.batch, args.batches, args.repeats = 32, 20, 4, 3, 1
    device = machine.device()
    # What does not fit is decoded every time; a set of any size behaves so here.
    datasets.MOST_CACHE_BYTES = 0
    about = f"loader at {args.size} px, batch {args.batch}, {args.images} images, x-flip"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "data.zip"
        write_dataset(path, pictures(args.images, args.size), None, "image\n", {})
        as_needed, mapped = open_dataset(path), open_dataset(path)
        checked = in_turn({"check": lambda: mapped.check(Path(place) / "decoded")}, repeats=1, warm_ups=0)["check"]

        def read(dataset: datasets.Dataset, count: int, step: float = 0.0) -> tuple[float, float]:
            return rate(Batches(dataset, mirror=True, seed=0, device=device), args.batch, count, step)

        sides = in_turn(
            {
                "decoded as needed": lambda: read(as_needed, max(args.batches // 10, 2)),
                "memory-mapped": lambda: read(mapped, args.batches),
                "with a step between": lambda: read(mapped, args.batches, args.step_seconds),
            },
            repeats=args.repeats,
            device=device.type,
        )
    rates = {name: statistics.median(result[0] for result in side.results) for name, side in sides.items()}
    for name, side in sides.items():
        more = {"ratio": rounded(rates[name] / rates["decoded as needed"])}
        if name == "with a step between":
            waited = statistics.median(result[1] for result in side.results)
            more = {
                "waited_ms_per_step": rounded(1000 * waited),
                "needed": rounded(args.batch / args.step_seconds),
            }
        all_rates = [rounded(result[0]) for result in side.results]
        show(row(f"{about}: {name}", rates[name], "images/s", **more, all=all_rates, peak_bytes=side.peak_bytes, device=device.type))
    show(row(f"{about}: decoded and checked once", args.images / checked.median, "images/s", peak_bytes=checked.peak_bytes))


if __name__ == "__main__":
    main()
