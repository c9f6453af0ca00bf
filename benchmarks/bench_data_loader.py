"""How many images a second does the training loader give, decoded as needed, from memory-mapped decoded images, and prefetched? One JSON line.

    python benchmarks/bench_data_loader.py [--size 512] [--images 2000] [--batch 32] [--repeats 3] [--step-seconds 0]

`needed` is what a training step uses: batch / --step-seconds, where that is given (e.g. 0.24 for 7.5 s/kimg at batch 32). `waited` is the part of a step of that length that
the loop waits for its batch. Sides are measured in turn; the first round is a warm-up. --tiny is for tests.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medgan import machine
from medgan.data import dataset as datasets
from medgan.data.dataset import open_dataset, write_dataset
from medgan.runs import commit
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
    parser.add_argument("--step-seconds", type=float, default=0.0)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.images, args.batch, args.batches, args.repeats = 32, 20, 4, 3, 1
    device = machine.device()
    found: dict[str, list[float]] = {}
    # What does not fit is decoded every time; a set of any size behaves so here.
    datasets.MOST_CACHE_BYTES = 0
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "data.zip"
        write_dataset(path, pictures(args.images, args.size), None, "image\n", {})
        as_needed, mapped = open_dataset(path), open_dataset(path)
        started = time.perf_counter()
        mapped.check(Path(place) / "decoded")
        check = time.perf_counter() - started
        for _ in range(args.repeats + 1):
            for name, dataset, step in (
                ("decoded as needed", as_needed, 0.0),
                ("memory-mapped", mapped, 0.0),
                ("waited", mapped, args.step_seconds),
            ):
                batches = Batches(dataset, mirror=True, seed=0, device=device)
                count = max(args.batches // 10, 2) if dataset is as_needed else args.batches
                images, waited = rate(batches, args.batch, count, step)
                found.setdefault(name, []).append(waited if name == "waited" else images)
    medians = {name: statistics.median(values[1:]) for name, values in found.items()}
    print(
        json.dumps(
            {
                "question": f"loader at {args.size} px, batch {args.batch}, {args.images} images, x-flip",
                "unit": "images/s",
                "decoded_as_needed": round(medians["decoded as needed"], 1),
                "memory_mapped": round(medians["memory-mapped"], 1),
                "ratio": round(medians["memory-mapped"] / medians["decoded as needed"], 1),
                "needed": round(args.batch / args.step_seconds, 1) if args.step_seconds else None,
                "waited_ms_per_step": round(1000 * medians["waited"], 3),
                "check_once_images_per_second": round(args.images / check, 1),
                "all": {name: [round(value, 5) for value in values] for name, values in found.items()},
                "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {os.cpu_count()} cores",
                "torch": torch.__version__,
                "commit": commit()[:9],
                "date": time.strftime("%Y-%m-%d"),
            }
        )
    )


if __name__ == "__main__":
    main()
