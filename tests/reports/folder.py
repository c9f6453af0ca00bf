"""A run folder made by hand: every number a report shows is written here first."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, PngImagePlugin

from medgan.reports.build import Drawn, render
from medgan.reports.results import read_results

FIDS = [(0.5, 412.31), (1.0, 298.04), (1.5, 212.47), (2.0, 230.99)]
IDENTITY = "5f" * 32
EXTRACTOR = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"


AUDIT = {
    "verdict": "passed",
    "statement": "No near copy was found among 64 synthetic images.",
    "n_fake": 64,
    "n_train": 92,
    "train_patients": 2,
    "limits": ["Only these 64 images were looked at."],
    "features": {"name": "inception-2015-12-05"},
    "extremes": {
        "farthest": [{"image": 9, "distance": 1.5}, {"image": 3, "distance": 1.25}],
        "nearest": [{"image": 60, "ncc": 0.8125}, {"image": 5, "ncc": 0.75}],
    },
}


def html(run: Path) -> str:
    """The report without its pictures, whose drawing takes a second."""
    return render(read_results(run), Drawn(curves=[], worst=[], walk=None))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def body(size: int, seed: int) -> Image.Image:
    """A grey ellipse with an organ in it: enough of a CT slice for a sheet."""
    image = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(image)
    s = size / 64
    draw.ellipse((6 * s, 14 * s, 58 * s, (50 + seed % 5) * s), fill=95, outline=60)
    draw.ellipse(((10 + seed % 4) * s, 20 * s, (34 + seed % 6) * s, 42 * s), fill=140 + seed % 9)
    draw.ellipse((30 * s, 40 * s, 36 * s, 46 * s), fill=240)
    return image


def sheet(path: Path, *, columns: int = 8, size: int = 64, text: str = "") -> None:
    whole = Image.new("L", (columns * size, columns * size))
    for n in range(columns * columns):
        whole.paste(body(size, n), (n % columns * size, n // columns * size))
    notes = PngImagePlugin.PngInfo()
    if text:
        notes.add_text("comment", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path, pnginfo=notes)


def stat(mean: float) -> dict[str, Any]:
    return {"num": 64, "mean": mean, "std": 0.1}


def ticks(kimg_each: float = 0.25, count: int = 8) -> list[dict[str, Any]]:
    rows = []
    for tick in range(1, count + 1):
        row = {
            "tick": tick,
            "kimg": tick * kimg_each,
            "nimg": round(tick * kimg_each * 1000),
            "seconds": tick * 7.0,
            "sec_per_kimg": 28.0,
            "nonfinite": 0,
            "Progress/augment": stat(0.01 * tick),
            "Loss/G/loss": stat(0.75 + 0.1 * tick),
            "Loss/D/loss": stat(1.4 - 0.05 * tick),
            "Loss/scores/real": stat(0.1 * tick),
            "Loss/scores/fake": stat(-0.15 * tick),
            "Loss/signs/real": stat(0.08 * tick),
        }
        rows.append(row)
    return rows


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def evaluation(fid: float, *, n_real: int = 92, n_fake: int = 500) -> dict[str, Any]:
    return {
        "metrics": {"fid50k_full": {"value": fid}},
        "n_real": n_real,
        "n_fake": n_fake,
        "extractor": {"name": "inception-2015-12-05", "sha256": EXTRACTOR},
        "resize": "tf1",
        "seed": 0,
        "warnings": [{"code": "FID_FEW_IMAGES", "text": "92 real images: a smoke figure."}],
        "seconds": 12.5,
    }


def provenance(stage: str, settings: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    return {
        "stage": stage,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "versions": {"medgan": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "settings": settings,
        "inputs": inputs,
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
        "started": "2026-01-31T12:00:00Z",
        "finished": "2026-01-31T12:07:10Z",
    }


def manifest_rows(images: int = 92, held_out: int = 5) -> list[dict[str, Any]]:
    return [
        {
            "image": f"00000/img{n:08d}.png",
            "sha256": f"{n:064x}",
            "subject_key": "a1b2c3d4" if n < 20 else "e5f60718" if n < images else "0badcafe",
            "session_key": "11112222" if n < 20 else "33334444",
            "series_key": "99990000" if n < 20 else "77776666",
            "slice_index": n,
            "n_slices": 92,
            "plane": "axial",
            "modality": "CT",
            "spacing_mm": "0.977x0.977x2" if n < 20 else "3x3x3",
            "level": "50.0",
            "width": "350.0",
            "split": "train" if n < images else "held-out",
        }
        for n in range(images + held_out)
    ]


def make_run(run: Path) -> Path:
    """A complete run of 2 kimg: 92 slices of 2 patients and 5 held out, the network of 1.5 kimg kept, 64 synthetic images, audited, FID 208.55."""
    write(
        run / "config.json", {"family": "stylegan2", "kimg": 2.0, "batch": 16, "gamma": 0.8, "ada_target": 0.6, "seed": 7, "mirror": True}
    )
    write(run / "run.json", provenance("train", {"kimg": 2.0}, {"dataset": IDENTITY}))
    write(run / "status.json", {"status": "complete", "kimg": 2.0})
    lines(run / "stats.jsonl", [row | {"Diversity/distance": 0.9, "Diversity/nearest": 0.8} for row in ticks()])
    lines(run / "metrics.jsonl", [{"kimg": kimg, **evaluation(fid, n_fake=256)} for kimg, fid in FIDS])
    write(run / "metrics.json", evaluation(208.55))
    table(run / "dataset" / "manifest.csv", manifest_rows())
    excluded = [("slice without the label", 38, "0-37"), ("slice without the label", 2, "90-91"), ("duplicate", 3, "5, 7, 9")]
    rows = [{"level": "slice", "reason": reason, "slices": slices, "count": n, "key": "77776666"} for reason, n, slices in excluded]
    table(run / "dataset" / "excluded.csv", rows)
    window = {"intensity": "window", "level": 50.0, "width": 350.0, "percentiles": [0.5, 99.5]}
    write(
        run / "dataset" / "recipe.json", {"name": "ct-liver", "title": "Liver CT", "size": 64, "plane": "axial", "mask_label": 1, **window}
    )
    write(run / "dataset" / "fingerprint.json", {"patients": 2, "images": 97, "advice": ["2 patients: below 30"]})
    sheet(run / "dataset" / "qc_sheet.png")
    write(
        run / "bundle" / "configs" / "metadata.json",
        {"medgan": {"family": "stylegan2", "kimg": 1.5, "arguments": {"img_resolution": 64}, "model_sha256": "d7" * 32}},
    )
    samples = [{"file": f"{n:08d}.png", "seed": n, "psi": "0.7", "sha256": f"{n:064x}"} for n in range(64)]
    table(run / "synthetic" / "manifest.csv", samples)
    write(run / "synthetic" / "run.json", provenance("generate", {"seeds": "0-63", "psi": 0.7}, {"bundle": "c0" * 32}))
    sheet(run / "synthetic" / "contact_sheet.png", text="synthetic=true")
    with zipfile.ZipFile(run / "synthetic" / "synthetic.zip", "w") as archive:
        for n in range(64):
            archive.writestr(f"{n:08d}.png", png(body(16, n)))
    write(run / "audit" / "audit.json", AUDIT)
    frames = Image.new("L", (12 * 32, 32))
    for n in range(12):
        frames.paste(20 * n, (32 * n, 0, 32 * n + 32, 32))
    (run / "walk").mkdir()
    frames.save(run / "walk" / "walk_strip.png")
    job = {
        "task": "train",
        "words": ["--recipe", "ct-liver", "--size", "64", "--preset", "standard", "--seed", "7", "--mask-name", "left lobe"],
    }
    write(run / "job.json", provenance("job", job, {"requirements.lock": "1c" * 32}))
    return run
