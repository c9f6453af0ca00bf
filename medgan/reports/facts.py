"""What a run says of itself, in sentences by topic: the answers of the reporting checklists. A topic it cannot answer is absent."""

from __future__ import annotations

from collections.abc import Mapping

import medgan
from medgan.reports.citation import NOT_FOR_DIAGNOSIS
from medgan.reports.companions import companions
from medgan.reports.dataset import data_rows
from medgan.reports.limitations import ALWAYS, reasons
from medgan.reports.merit import metric_facts, metric_rows, variety_rows, why_kept
from medgan.reports.reproduction import commands, container_line
from medgan.reports.results import Results, number
from medgan.reports.verdict import amount, count, verdict


def facts(results: Results) -> dict[str, str]:
    """The answers, by topic; in plain text without markup."""
    found = {**_of_the_data(results), **_of_the_model(results), **_of_the_figures(results), **_of_the_run(results)}
    return {topic: " ".join(text.split()) for topic, text in found.items() if text}


def _of_the_data(results: Results) -> dict[str, str]:
    rows = dict(data_rows(results))
    dataset = results.dataset
    if dataset is None:
        return {}
    recipe = dataset.recipe
    left_out = dataset.excluded
    counts = [rows[name] + f" {name.lower()}" for name in ("Images", "Patients", "Scans (series)") if name in rows]
    steps = [f"{name.lower()}: {rows[name]}" for name in ("Recipe", "Intensities", "Plane", "Size", "Spacing") if name in rows]
    label = recipe.get("mask_name") or recipe.get("mask_label")
    return {
        "counts": ", ".join(counts) + ("." if counts else ""),
        "modality": rows.get("Modality", ""),
        "acquisition": "; ".join(f"{name.lower()} {rows[name]}" for name in ("Modality", "Plane", "Spacing") if name in rows)
        + ". Scanners and protocols are not recorded.",
        "preprocessing": "; ".join(steps) + ("." if steps else ""),
        "subset": f"Slices with the label {label}." if label and label != -1 else "",
        "excluded": "; ".join(f"{amount(n)} x {reason}" for reason, n in left_out.items()) + "."
        if left_out
        else "Nothing was left out."
        if left_out is not None
        else "",
        "deidentification": "Patients appear under keys (HMAC-SHA-256) whose secret is never exported; names, dates, UIDs and paths are in no output.",
        "partitions": f"{count(dataset.held_out, 'image')} held out of training, by patient."
        if dataset.held_out
        else "All images were trained on; no patient was held out.",
        "level": "Patient: no patient is on both sides." if dataset.held_out else "",
        "missing_data": "Scans and slices that cannot be read, are cut short, empty or in a wrong unit are left out and listed with their reason in dataset/excluded.csv; nothing is filled in.",
        "errors_in_data": "; ".join(dataset.warnings),
    }


def _of_the_model(results: Results) -> dict[str, str]:
    model, config = results.model, results.config
    arguments = model.get("arguments")
    family = str(model.get("family") or config.get("family") or "")
    size = number(arguments.get("img_resolution")) if isinstance(arguments, Mapping) else None
    parts = [f"{name} {value}" for name, value in arguments.items() if number(value) is not None] if isinstance(arguments, Mapping) else []
    source = results.source
    names = ("batch", "gamma", "augment", "mirror", "lr_g", "lr_d", "ema_kimg", "precision", "seed")
    settings = ", ".join(f"{name} {config[name]}" for name in names if name in config)
    trained = f"{amount(results.kimg * 1000)} images shown" if results.kimg is not None else ""
    return {
        "category": f"Generative model (GAN, family {family}) of two-dimensional medical images." if family else "",
        "model": f"{family}{f', {amount(size)} x {amount(size)} pixels' if size else ''}"
        + (f"; {', '.join(parts)}" if parts else "")
        + (f"; weights SHA-256 {model['model_sha256']}." if model.get("model_sha256") else ".")
        if family
        else "",
        "initialisation": f"Weights of {source.get('kind', 'a network file')}, SHA-256 {source.get('sha256', 'not recorded')}, licence: {source.get('licence') or 'not recorded'}."
        if source
        else f"Random, seed {config['seed']}."
        if "seed" in config
        else "",
        "training": f"{trained}; {settings}. All settings are in config.json." if trained and settings else trained,
        "selection": why_kept(results),
        "ensembles": "None: one generator." if model else "",
    }


def _of_the_figures(results: Results) -> dict[str, str]:
    rows = metric_rows(results)
    values = "; ".join(f"{row.name} {row.value}" + (f" ({row.details})" if row.details else "") for row in rows)
    base = "; ".join(f"{name.lower()} {value}" for name, value in metric_facts(results) if "SHA" not in name and "content" not in name)
    floor = "; ".join(f"{row.name} {row.value} ({row.counts}): {row.text}" for row in companions(results)[1:])
    varied = "; ".join(f"{row.name} {row.value}" for row in variety_rows(results))
    intervals = any("interval" in row.details and "no interval" not in row.details for row in rows)
    return {
        "performance": f"{values}. {base}." if values else "",
        "metrics": ", ".join(row.name for row in rows),
        "uncertainty": "Bootstrap intervals stand beside the figures in metrics.json. " + floor if intervals else floor,
        "variety": varied,
        "sample_size": f"{base}. Not set by a calculation of power." if base else "",
        "privacy": str(results.audit.get("statement") or ""),
        "failures": "The images least and most like real ones are shown in the report under Worst cases, and in figures/."
        if isinstance(results.audit.get("extremes"), Mapping)
        else "",
    }


def _of_the_run(results: Results) -> dict[str, str]:
    run = results.provenance.get("train", {})
    versions = run.get("versions")
    listed = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, Mapping) else ""
    machine = run.get("machine")
    where = ", ".join(f"{name} {value}" for name, value in machine.items()) if isinstance(machine, Mapping) else ""
    line = container_line(results) or "; ".join(line for _, line in commands(results))
    identity = results.model.get("dataset")
    return {
        "software": f"{listed or f'medgan {medgan.__version__}'}; commit {run.get('commit', 'not recorded')}.",
        "machine": where,
        "reproduce": f"{line} (dataset {identity})." if line and identity else line,
        "availability": "Code: medgan, Apache-2.0. Generator: a MONAI bundle with its checksum.",
        "limitations": " ".join([*reasons(results), *ALWAYS]),
        "intended_use": "Research and teaching, as images that show no patient. " + NOT_FOR_DIAGNOSIS,
        "verdict": verdict(results).sentence,
        "dates": f"Trained {run['started']} to {run['finished']}." if run.get("started") and run.get("finished") else "",
    }
