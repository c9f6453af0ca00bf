"""A run folder in, one HTML file out: no script, no link out of the file, equal folders give equal bytes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import medgan
from medgan import runs
from medgan.data.prepare import PrepareConfig
from medgan.errors import OutputError
from medgan.reports.citation import NOT_FOR_DIAGNOSIS, REFERENCES, SENTENCE, citation_text
from medgan.reports.commandline import command_line, looks_like_path
from medgan.reports.companions import companions, difference_text, interval_text
from medgan.reports.pictures import data_uri, read_sheet
from medgan.reports.prediction import basis, predictions
from medgan.reports.results import FID_NAMES, DatasetFacts, Results, metric_value, number, read_results
from medgan.reports.verdict import amount, count, fid_text, verdict

# A long training has hundreds of evaluations; the curve shows them all, the table a dozen.
EVALUATION_ROWS = 12

MEANINGS = {
    "fid50k_full": "Fréchet Inception Distance as the StyleGAN2-ADA code defines it (covariance divided by N). Lower is better, 0 is equal.",
    "fid": "Fréchet Inception Distance with covariances divided by N − 1. Lower is better, 0 is equal.",
    "fid50k": "As fid50k_full, against the first 50,000 real images. Lower is better, 0 is equal.",
    "kid": "Kernel Inception Distance, unbiased: values slightly below zero are correct. Lower is better.",
    "precision_inception": "Share of synthetic images that lie among the real ones (Inception features). Higher is better, 1 is the most.",
    "recall_inception": "Share of real images that lie among the synthetic ones (Inception features). Higher is better, 1 is the most.",
    "precision": "Share of synthetic images that look like real ones. 1 is best.",
    "recall": "Share of real images that the generator could have made. 1 is best.",
    "density_inception": "How crowded the real images are around a synthetic one. Higher is better, about 1 for equal distributions.",
    "ms_ssim": "How alike two synthetic images are (mean MS-SSIM of pairs). Should be near the real images' own figure.",
    "cosine_pixels": "How far apart two synthetic images are (cosine distance of pixels). Should be near the real images' own figure.",
    "cosine_inception": "How far apart two synthetic images are (cosine distance of Inception features). Should be near the real images' own figure.",
    "lpips_alexnet": "How far apart two synthetic images look (LPIPS on AlexNet). Should be near the real images' own figure.",
    "lpips_vgg16": "How far apart two synthetic images look (LPIPS on VGG16). Should be near the real images' own figure.",
    "ppl2_wend": "Perceptual path length: how abruptly images change with their latents. Lower is smoother; it knows no real images.",
    "ssim_nearest": "SSIM of synthetic images with the nearest real one. Far above the real images' own figure, it says that images are repeated.",
    "coverage_inception": "Share of real images with a synthetic one near by. Higher is better, 1 is the most.",
}


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One line of the metrics table."""

    name: str
    value: str
    details: str
    meaning: str


def build_report(run: Path, out: Path, *, include_sheet: bool = True, figures: Path | None = None, citation: Path | None = None) -> Path:
    """Write the report of a run, complete or not.

    Args:
        run: The run folder.
        out: The HTML file.
        include_sheet: Whether the sheet of real training images is shown; leave it out of a file that is passed on.
        figures: A folder for the figures as PNG files, or None.
        citation: A file for the citation text (CITATION.md), or None.

    Returns:
        `out`.

    Raises:
        InputError: The folder holds nothing of a run.
        OutputError: The target cannot be written.
    """
    results = read_results(run)
    if out.is_dir():
        raise OutputError("the target of the report is a folder", fix="--out FILE.html")
    runs.check_writable(out.parent, "the folder of the report")
    if figures is not None:
        runs.check_writable(figures, "the folder of the figures")
    pictures = _draw(results)
    runs.write_text(out, render(results, pictures, include_sheet=include_sheet))
    if figures is not None:
        write_figures(results, figures, pictures=pictures)
    if citation is not None:
        runs.write_text(citation, citation_text(medgan.__version__))
    return out


def write_figures(results: Results, folder: Path, *, pictures: list[tuple[Any, bytes]] | None = None) -> list[Path]:
    """Write each figure as NAME.png, and all of them as curves.png; nothing where the run has no numbers for them."""
    from medgan.reports.figures import sheet

    drawn = _draw(results) if pictures is None else pictures
    contents = {f"{figure.name}.png": content for figure, content in drawn}
    if drawn:
        contents["curves.png"] = sheet([figure for figure, _ in drawn])
    for name, content in contents.items():
        with runs.atomic(folder / name) as temporary:
            temporary.write_bytes(content)
    return [folder / name for name in contents]


def render(results: Results, pictures: list[tuple[Any, bytes]], *, include_sheet: bool = True) -> str:
    """The report as HTML text; every value of the run is escaped.

    Args:
        results: What the run folder holds.
        pictures: Figures with their PNGs.
        include_sheet: See `build_report`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"amount": amount, "fid": fid_text}
    template = environment.from_string(files("medgan.reports").joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        results=results,
        verdict=verdict(results),
        version=medgan.__version__,
        data_rows=_data_rows(results),
        sheet=read_sheet(results.dataset_sheet) if include_sheet and results.dataset_sheet else None,
        sheet_left_out=not include_sheet and results.dataset_sheet is not None,
        figures=[(figure, data_uri(content)) for figure, content in pictures],
        evaluations=_evaluation_rows(results),
        synthetic=read_sheet(results.synthetic_sheet) if results.synthetic_sheet else None,
        synthetic_is_snapshot=results.synthetic_sheet is not None and results.synthetic_sheet.parent.name == runs.SNAPSHOTS,
        seed_range=_seeds(results).get("seeds", ""),
        psis=sorted({row["psi"] for row in results.samples if row.get("psi")}),
        metrics=_metric_rows(results),
        companions=companions(results),
        metric_facts=_metric_facts(results),
        predictions=predictions(results),
        basis=basis(results),
        audit=results.audit,
        audit_rows=_readable(results.audit),
        warnings=_warnings(results),
        commands=_commands(results),
        facts=_machine_facts(results),
        checksums=_checksums(results),
        settings=_settings(results.config),
        references=REFERENCES,
        sentence=SENTENCE.format(version=medgan.__version__),
        not_for_diagnosis=NOT_FOR_DIAGNOSIS,
    )


def _draw(results: Results) -> list[tuple[Any, bytes]]:
    from medgan.reports.figures import figures, png

    return [(figure, png(figure)) for figure in figures(results)]


def _data_rows(results: Results) -> list[tuple[str, str]]:
    """What went in, as (name, value); only what the run folder says."""
    dataset = results.dataset
    if dataset is None:
        return []
    recipe = dataset.recipe
    title = recipe.get("title") or recipe.get("name")
    if title and recipe.get("name") and recipe["name"] != title:
        title = f"{title} ({recipe['name']})"
    arguments = results.model.get("arguments")
    size = number(recipe.get("size")) or (number(arguments.get("img_resolution")) if isinstance(arguments, Mapping) else None)
    rows = [
        ("Recipe", title),
        ("Images", amount(dataset.images) if dataset.images else ""),
        ("Patients", amount(dataset.patients) if dataset.patients else ""),
        ("Scans (series)", amount(dataset.series) if dataset.series else ""),
        ("Modality", ", ".join(dataset.modalities)),
        ("Intensities", _intensities(dataset)),
        ("Plane", ", ".join(dataset.planes)),
        ("Size", f"{amount(size)} × {amount(size)} pixels" if size else ""),
        ("Spacing", _spacings(dataset.spacings)),
        ("Held out, by patient", count(dataset.held_out, "image") if dataset.held_out else ""),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _intensities(dataset: DatasetFacts) -> str:
    """How the scans' values became grey; where the volume itself sets the window, its rule instead of hundreds of windows."""
    recipe = dataset.recipe
    percentiles = recipe.get("percentiles")
    if recipe.get("intensity") == "percentile" and isinstance(percentiles, list) and len(percentiles) == 2:
        return f"percentiles {_word(percentiles[0])} to {_word(percentiles[1])} of each volume"
    if recipe.get("intensity") == "minmax":
        return "whole range of each volume"
    if recipe.get("intensity") == "stored":
        return "as stored"
    return _windows(dataset.windows, " HU" if dataset.modalities == ["CT"] else "")


def _windows(windows: list[str], unit: str) -> str:
    """Level and width, and what they do to the ends of the range."""
    shown = []
    for window in windows[:4]:
        try:
            level, width = (float(part) for part in window.split(" / "))
        except ValueError:
            shown.append(window)
            continue
        low, high = level - width / 2, level + width / 2
        shown.append(f"L {level:g} / W {width:g}: {_signed(low)}{unit} becomes black, {_signed(high)}{unit} white")
    more = len(windows) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _spacings(spacings: list[str]) -> str:
    shown = [text.replace("\\", " × ").replace("x", " × ") + " mm" for text in spacings[:3]]
    more = len(spacings) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _evaluation_rows(results: Results) -> list[dict[str, Any]]:
    """At most a dozen of the evaluations made during training: the first, the last, the chosen one and some between."""
    rows = [row for row in results.evaluations if any(metric_value(row, name) is not None for name in FID_NAMES)]
    step = max(-(-len(rows) // (EVALUATION_ROWS - 2)), 1)
    picked = [row for index, row in enumerate(rows) if index % step == 0 or index == len(rows) - 1 or row["kimg"] == results.chosen_kimg]
    return [
        {
            "kimg": row["kimg"],
            "values": {name: metric_value(row, name) for name in FID_NAMES if any(metric_value(r, name) is not None for r in rows)},
            "n_real": number(row.get("n_real")),
            "n_fake": number(row.get("n_fake")),
            "chosen": row["kimg"] == results.chosen_kimg,
        }
        for row in picked
    ]


def _metric_rows(results: Results) -> list[MetricRow]:
    metrics = results.metrics.get("metrics")
    rows = []
    for name, entry in metrics.items() if isinstance(metrics, Mapping) else ():
        values = dict(entry) if isinstance(entry, Mapping) else {"value": entry}
        meaning = MEANINGS.get(name, "")
        values.pop("higher_is_better", None)  # the meaning says it
        details = interval_text(values, partial(_figure, name))
        difference = difference_text(values)
        for key in ("interval", "interval_level", "interval_method", *(("difference",) if difference else ())):
            values.pop(key, None)
        if name == "fid50k_full" and number(results.metrics.get("n_fake")) not in (None, 50000):
            # The name promises 50,000 images; a short evaluation under it must say what it is.
            details = f"from {_word(results.metrics['n_fake'])} synthetic images instead of 50,000" + (f", {details}" if details else "")
        if "value" in values:
            shown = _figure(name, values.pop("value"))
            details = ", ".join(
                filter(
                    None,
                    [details, difference, *(f"{key.replace('_', ' ')} {_word(value)}" for key, value in values.items() if _is_word(value))],
                )
            )
            rows.append(MetricRow(name=name, value=shown, details=details, meaning=meaning))
            continue
        for key, value in values.items():
            if number(value) is not None:
                rows.append(MetricRow(name=f"{name}: {key}", value=_word(value), details="", meaning=MEANINGS.get(key, meaning)))
    return rows


def _figure(name: str, value: Any) -> str:
    found = number(value)
    if found is None:
        return "not a finite number"
    return fid_text(found) if name.startswith("fid") else amount(found)


def _is_word(value: Any) -> bool:
    return number(value) is not None or (isinstance(value, str | bool) and not looks_like_path(str(value)))


def _word(value: Any) -> str:
    found = number(value)
    return amount(found) if found is not None else str(value)


def _metric_facts(results: Results) -> list[tuple[str, str]]:
    metrics = results.metrics
    extractor = metrics.get("extractor")
    extractor = extractor if isinstance(extractor, Mapping) else {"name": extractor}
    resize = {"tf1": "tf1 (as the official StyleGAN2-ADA code)", "pytorch-fid": "pytorch-fid (as that package)"}
    rows = [
        ("Real images", metrics.get("n_real")),
        ("Synthetic images", metrics.get("n_fake")),
        ("Feature extractor", extractor.get("name")),
        ("Its SHA-256", extractor.get("sha256")),
        ("Resizing to its input", resize.get(str(metrics.get("resize")), metrics.get("resize"))),
        ("Seed", metrics.get("seed")),
        ("Real set, by content", metrics.get("real")),
    ]
    return [(name, _word(value)) for name, value in rows if value not in (None, "")]


def _readable(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The audit's rows, or none where the file is not what `medgan audit` writes."""
    try:
        return _audit_rows(audit)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        return [("Details", "audit.json is damaged; `medgan audit` writes it anew")]


def _audit_rows(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the privacy audit found, as (name, value); whatever is absent is left out."""

    def part(name: str) -> Mapping[str, Any]:
        found = audit.get(name)
        return found if isinstance(found, Mapping) else {}

    def share(value: Any) -> str:
        return f"{100 * value:.3g} %"

    copies, test, power, alarm, features, authentic, statistic, member = map(
        part, ("near_copies", "count_test", "power", "false_alarm", "features", "authenticity", "c_t", "membership")
    )
    against = power.get("against")
    shares = [f"{share(value)} at {name}" for name, value in against.items()] if isinstance(against, Mapping) else []
    interval = copies.get("interval")
    rows = [
        ("Synthetic images looked at", audit.get("n_fake")),
        (
            "Training images",
            f"{_word(audit['n_train'])} of {_word(audit.get('train_patients'))} patients" if audit.get("n_train") else None,
        ),
        (
            "Held-out images",
            f"{_word(audit['n_held_out'])} of {_word(audit.get('held_out_patients'))} patients" if audit.get("n_held_out") else "none",
        ),
        (
            "Near copies",
            f"{_word(copies['count'])} ({share(copies['rate'])}, 95 % interval {share(interval[0])} to {share(interval[1])})"
            if isinstance(interval, list) and number(copies.get("rate")) is not None
            else None,
        ),
        ("Correlation from which an image is a near copy", f"{copies['ncc']:.4f}" if number(copies.get("ncc")) is not None else None),
        (
            "Nearer than other patients' images",
            f"{_word(test['count'])}, p = {test['p']:.2g} (refused below {test['level']:.2g})"
            if number(test.get("p")) is not None
            else None,
        ),
        (
            "Authenticity",
            share(authentic["share"])
            + (f", {share(authentic['null'])} on held-out images" if number(authentic.get("null")) is not None else "")
            if number(authentic.get("share")) is not None
            else None,
        ),
        (
            "C_T, in standard deviations",
            f"{statistic['value'] / statistic['sd']:.2f}" if number(statistic.get("value")) is not None else None,
        ),
        (
            "Does D know its training images (AUC)",
            f"{member['auc']:.3f}, 95 % interval {member['interval'][0]:.3f} to {member['interval'][1]:.3f}; 0.5 is no"
            if number(member.get("auc")) is not None
            else None,
        ),
        (
            "Planted near copies that are recognised",
            f"{share(power['recognised'])} of {_word(power.get('planted'))}" if number(power.get("recognised")) is not None else None,
        ),
        ("Probability to find any, if so many were near copies", "; ".join(shares)),
        (
            "Probability to refuse honest images",
            f"{share(alarm['at_most'])} at most, calibrated on {_word(audit.get('calibration_patients'))} patients ({_word(audit.get('calibrated_on'))})"
            if number(alarm.get("at_most")) is not None
            else "not known: not calibrated",
        ),
        ("Features beside grey values", features.get("name")),
    ]
    return [(name, _word(value)) for name, value in rows if value not in (None, "")]


def _warnings(results: Results) -> list[tuple[str, str]]:
    """Warnings the stages left, as (code, text)."""
    found = [("DATASET", text) for text in results.dataset.warnings] if results.dataset else []
    found += [(code, f"From {amount(kimg)} kimg on: {text}.") for kimg, code, text in results.alarms]
    stored = results.metrics.get("warnings")
    for warning in stored if isinstance(stored, list) else []:
        if isinstance(warning, Mapping):
            found.append((str(warning.get("code", "")), str(warning.get("text", ""))))
        else:
            found.append(("", str(warning)))
    return found


# Options of `generate` that its images depend on, and the values that change nothing.
DRAWING = ("seeds", "psi", "psi_cutoff", "class", "noise")
UNCHANGED = {"psi_cutoff": 0, "class": "all", "noise": "random"}


def _commands(results: Results) -> list[tuple[str, str]]:
    """One command per stage that left its settings, as (what it does, command)."""
    prepare = results.provenance.get("prepare", {}).get("settings") or _recipe_settings(results)
    generate = results.provenance.get("generate", {}).get("settings", {})
    commands = []
    if name := prepare.get("recipe"):
        start = f"medgan prepare SCANS DATA.zip --recipe {shlex.quote(str(name))}"
        options = (
            "masks", "mask_label", "mask_name", "window", "window_preset", "size", "plane", "min_mask_pixels", "series", "kernel", "thickness", "derived",
            "frames", "fit", "only_class", "labels", "split", "paper_compatible", "held_out", "allow_burned_in", "pseudonym_key", "seed",
        )  # fmt: skip
        commands.append(("Scans to dataset", command_line(start, prepare, options, PrepareConfig())))
    if results.checked:
        commands.append(("Dataset to these facts", "medgan inspect DATA.zip --json"))
    if results.config:
        start = " --pretrained NETWORK" if results.config.get("pretrained") else ""
        commands.append(("Dataset to generator", f"medgan train --data DATA.zip --out NEW_RUN --config RUN/config.json{start}"))
    if results.model:
        line = command_line("medgan generate --bundle RUN/bundle --out IMAGES", _drawing(generate) or _seeds(results), DRAWING)
        commands.append(("Generator to images", line))
    if metrics := results.metrics.get("metrics"):
        start = f"medgan evaluate --real DATA.zip --bundle RUN/bundle --out metrics.json --metrics {','.join(metrics)}"
        commands.append(("Images to figures", command_line(start, results.metrics, ("resize", "n_fake", "seed"))))
    return commands if results.checked else [*commands, ("Figures to this report", "medgan report RUN")]


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


def _seeds(results: Results) -> dict[str, Any]:
    """The seeds and psi of the stored images, where they are one unbroken range and one value."""
    try:
        seeds = sorted({int(row["seed"]) for row in results.samples})
    except (KeyError, ValueError):
        return {}
    psis = {row.get("psi") or None for row in results.samples}
    if not seeds or seeds != list(range(seeds[0], seeds[-1] + 1)):
        return {}
    return {"seeds": f"{seeds[0]}-{seeds[-1]}", "psi": psis.pop() if len(psis) == 1 else None}


def _machine_facts(results: Results) -> list[tuple[str, str]]:
    run = results.provenance.get("train", {})
    versions, machine = run.get("versions"), run.get("machine")
    rows = [(name, str(version)) for name, version in versions.items()] if isinstance(versions, Mapping) else []
    rows.append(("commit", str(run.get("commit", ""))))
    if results.config.get("seed") is not None:
        rows.append(("seed", _word(results.config["seed"])))
    if isinstance(machine, Mapping):
        rows += [(name, str(value)) for name, value in machine.items()]
    rows += [(name, str(run.get(name, ""))) for name in ("started", "finished")]
    return [(name, value) for name, value in rows if value and not looks_like_path(value)]


def _checksums(results: Results) -> list[tuple[str, str, str]]:
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


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The training settings for the appendix; whatever might be a path stays out."""
    rows = []
    for name, value in config.items():
        words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        text = ", ".join(words)
        rows.append((name, "(a path, left out)" if any(looks_like_path(word) for word in words) else text))
    return rows
