"""The model card of a bundle, docs/README.md: the sections of Mitchell et al. 2019 (arXiv 1810.03993, figure 1), filled in from what was recorded.

What nobody recorded is marked TODO, for whoever gives the model away: a card that is silent on it would read as if there were nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TODO = "**TODO**"
RENEW = "sha256sum LICENSE */* > SHA256SUMS"
"""What a person runs inside a bundle after changing a file of it, the card for instance."""


def _value(value: object, missing: str) -> str:
    return f"{TODO}: {missing}" if value in (None, "", "?") else str(value)


def _rows(facts: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)])


def model_card(metadata: Mapping[str, Any], *, disclaimer: str) -> str:
    """What a stranger should know of a model, as Markdown.

    Args:
        metadata: Of the bundle, complete.
        disclaimer: What no reader may miss.
    """
    about = metadata["medgan"]
    return f"""# {metadata["name"]}

{metadata["description"]}

**{disclaimer}**

## Model details

{_rows(_details(metadata))}

## Intended use

Research on synthetic images: augmentation, teaching, tests of software. {TODO}: what it was made for.

Out of scope: diagnosis, treatment, statements on any patient, images passed on as real, and data other than those it was trained on.

## Factors

It knows the scans it was trained on: their scanners, protocols, patients and window. It shows nothing else. {TODO}: groups and findings that are rare or absent in them.

## Metrics

Snapshot chosen by: {_value(about.get("chosen_by"), "the metric")}. {TODO}: FID, KID, precision and recall with their intervals, from metrics.json or the report of the run.

## Training data

{_rows(_training(about))}

## Evaluation data

{TODO}: which images the metrics and the privacy audit were computed with (held-out patients, their number).

## Ethical considerations

No identifying data is in this bundle. Whether images of patients can be drawn from it is what `medgan audit` measures; making the bundle did not. {TODO}: the audit's verdict.

## Caveats

- A low FID does not exclude copies of training images, and says nothing of single images.
- Rare findings are missing or wrong; no finding in an image is evidence of anything.

## Use

With medgan installed, in this folder:

    medgan generate --bundle . --out images --seeds 0-99
    python -m monai.bundle run --config_file configs/inference.json --output_dir images --seeds 0-99

or in Python `monai.bundle.load("<name>", bundle_dir="<folder above>", workflow_type="inference")`. Without medgan: `medgan export` writes TorchScript and ONNX.

After filling in this card: `{RENEW}` in this folder, or the bundle counts as damaged.
"""


def _details(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the model is and where it came from."""
    about = metadata["medgan"]
    arguments = about["arguments"]
    source = about.get("source") or {}
    classes = f"with {arguments['c_dim']} classes" if arguments.get("c_dim") else "without classes"
    facts = [
        ("Developed by", _value("", "person or institution, with an address for questions")),
        ("Version", f"medgan {metadata['version']}, PyTorch {metadata['pytorch_version']}"),
        ("Type", f"{about['family']} generator, {classes}"),
        ("Image size", f"{arguments['img_resolution']} x {arguments['img_resolution']} pixels, {arguments['img_channels']} channel(s)"),
        ("Weights SHA-256", f"`{about['model_sha256']}`"),
    ]
    if source:
        came = "Started from" if "dataset" in about else "Imported from"
        facts.append((came, f"{source.get('kind', 'a network file')}, sha256 `{source['sha256']}`"))
    if source.get("licence"):
        facts.append(("Licence of those weights", source["licence"]))
    return [*facts, ("Licence of this model", _value("", "the LICENSE beside is that of the code; weights and data have their own"))]


def _training(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the model was trained on and how long."""
    recipe = about.get("recipe") or {}
    return [
        ("Images", _value(about.get("images"), "how many")),
        ("Dataset identity", f"`{about['dataset']}`" if "dataset" in about else _value("", "which data set")),
        ("Recipe", _value(recipe.get("name"), "how scans became images")),
        ("Rule from", recipe.get("source") or "not recorded"),
        ("Intensities", intensities(about.get("window") or {})),
        ("Images shown", f"{about['kimg']:g} thousand" if "kimg" in about else _value("", "how long it was trained")),
        ("Seed", _value(about.get("seed"), "the seed of the training")),
        ("Snapshot chosen by", _value(about.get("chosen_by"), "why this snapshot")),
        ("Patients, scanners, protocols", _value("", "number, sex, age, manufacturers, sites, dates")),
        ("Ethics and consent", _value("", "approval, waiver or licence under which the scans were used")),
    ]


def intensities(window: Mapping[str, Any]) -> str:
    """What a pixel of an image means in the unit of the scan."""
    if inverse := window.get("inverse"):
        return f"window level {window['level']:g}, width {window['width']:g} {window['unit']}: {inverse}"
    return window.get("reason") or _value("", "how scans became grey")
