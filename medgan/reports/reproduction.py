"""How a run is made again: its commands, versions, checksums and settings, without any path of anybody's disk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import medgan
from medgan.data.prepare import PrepareConfig
from medgan.reports.commandline import command_line, looks_like_path
from medgan.reports.results import Results
from medgan.reports.verdict import word

# Options of `generate` that its images depend on, and the values that change nothing.
DRAWING = ("seeds", "psi", "psi_cutoff", "class", "noise")
UNCHANGED = {"psi_cutoff": 0, "class": "all", "noise": "random"}


def commands(results: Results) -> list[tuple[str, str]]:
    """One command per stage that left its settings, as (what it does, command)."""
    prepare = results.provenance.get("prepare", {}).get("settings") or _recipe_settings(results)
    generate = results.provenance.get("generate", {}).get("settings", {})
    found = []
    if name := prepare.get("recipe"):
        start = f"medgan prepare SCANS DATA.zip --recipe {shlex.quote(str(name))}"
        options = (
            "masks", "mask_label", "mask_name", "window", "window_preset", "size", "plane", "min_mask_pixels", "series", "kernel", "thickness", "derived",
            "frames", "fit", "only_class", "labels", "split", "paper_compatible", "held_out", "allow_burned_in", "pseudonym_key", "seed",
        )  # fmt: skip
        found.append(("Scans to dataset", command_line(start, prepare, options, PrepareConfig())))
    if results.checked:
        found.append(("Dataset to these facts", "medgan inspect DATA.zip --json"))
    if results.config:
        start = " --pretrained NETWORK" if results.config.get("pretrained") else ""
        found.append(("Dataset to generator", f"medgan train --data DATA.zip --out NEW_RUN --config RUN/config.json{start}"))
    if results.model:
        line = command_line("medgan generate --bundle RUN/bundle --out IMAGES", _drawing(generate) or stored_seeds(results), DRAWING)
        found.append(("Generator to images", line))
    if metrics := results.metrics.get("metrics"):
        start = f"medgan evaluate --real DATA.zip --bundle RUN/bundle --out metrics.json --metrics {','.join(metrics)}"
        found.append(("Images to figures", command_line(start, results.metrics, ("resize", "n_fake", "seed"))))
    return found if results.checked else [*found, ("Figures to this report", "medgan report RUN")]


def container_line(results: Results) -> str:
    """The job as one line for a container engine; empty for a run whose stages were launched one by one."""
    job = results.provenance.get("job", {})
    settings = job.get("settings")
    words = settings.get("words") if isinstance(settings, Mapping) else None
    if not isinstance(settings, Mapping) or not isinstance(words, list) or any(looks_like_path(str(item)) for item in words):
        return ""
    versions = job.get("versions") or results.provenance.get("train", {}).get("versions")
    of_cpu = isinstance(versions, Mapping) and str(versions.get("torch", "")).endswith("+cpu")
    start = "docker run --rm --network none --user $(id -u):$(id -g)" + ("" if of_cpu else " --gpus all")
    folders = " -v SCANS:/input:ro -v RESULTS:/output -v SCRATCH:/work"
    weights = " -v WEIGHTS:/weights:ro" if "--pretrained" in words else ""
    image = f"medgan:{medgan.__version__}{'-cpu' if of_cpu else ''}"
    return f"{start}{folders}{weights} {image} {settings.get('task', 'train')} {shlex.join(map(str, words))}".rstrip()


def _recipe_settings(results: Results) -> dict[str, Any]:
    """The settings of `prepare` that lead to the stored recipe, for a run folder that knows the recipe only."""
    recipe = results.dataset.recipe if results.dataset else {}
    settings = {name: recipe.get(name) for name in ("mask_label", "mask_name", "size", "plane", "min_mask_pixels")}
    if settings["mask_label"] == 0 and not settings["mask_name"]:
        settings["mask_label"] = -1  # 0 would mean the recipe's own label, -1 every slice
    if recipe.get("intensity") == "window":
        settings["window"] = [recipe.get("level"), recipe.get("width")]
    return {"recipe": recipe.get("name"), **settings}


def _drawing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `generate` that make its images, under the options' names, those left alone left out."""
    named = {"class" if name == "class_index" else name: value for name, value in settings.items()}
    return {name: value for name, value in named.items() if value != UNCHANGED.get(name)}


def stored_seeds(results: Results) -> dict[str, Any]:
    """The seeds and psi of the stored images, where they are one unbroken range and one value."""
    try:
        seeds = sorted({int(row["seed"]) for row in results.samples})
    except (KeyError, ValueError):
        return {}
    psis = {row.get("psi") or None for row in results.samples}
    if not seeds or seeds != list(range(seeds[0], seeds[-1] + 1)):
        return {}
    return {"seeds": f"{seeds[0]}-{seeds[-1]}", "psi": psis.pop() if len(psis) == 1 else None}


def machine_facts(results: Results) -> list[tuple[str, str]]:
    """Versions, commit, seed and machine of the training."""
    run = results.provenance.get("train", {})
    versions, machine = run.get("versions"), run.get("machine")
    rows = [(name, str(version)) for name, version in versions.items()] if isinstance(versions, Mapping) else []
    rows.append(("commit", str(run.get("commit", ""))))
    if results.config.get("seed") is not None:
        rows.append(("seed", word(results.config["seed"])))
    if isinstance(machine, Mapping):
        rows += [(name, str(value)) for name, value in machine.items()]
    rows += [(name, str(run.get(name, ""))) for name in ("started", "finished")]
    return [(name, value) for name, value in rows if value and not looks_like_path(value)]


def checksums(results: Results) -> list[tuple[str, str, str]]:
    """(stage, role, checksum) of what went into each stage, and of the generator."""
    rows = []
    for stage, values in results.provenance.items():
        inputs = values.get("inputs")
        if isinstance(inputs, Mapping):
            rows += [(stage, str(role), str(value)) for role, value in inputs.items()]
    # A run that is generated from again names its generator by content.
    rows += [
        ("bundle", role, str(results.model[key]))
        for role, key in (("dataset", "dataset"), ("weights", "model_sha256"))
        if results.model.get(key)
    ]
    return [row for row in rows if not looks_like_path(row[1] + row[2])]


def training_settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The training settings for the appendix; whatever might be a path stays out."""
    rows = []
    for name, value in config.items():
        words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        text = ", ".join(words)
        rows.append((name, "(a path, left out)" if any(looks_like_path(word) for word in words) else text))
    return rows
