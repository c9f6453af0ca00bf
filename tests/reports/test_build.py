"""The HTML file: whole, self-contained, escaped, equal for equal input."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medgan.data.prepare import PrepareConfig
from medgan.errors import OutputError
from medgan.reports.build import Drawn, build_report, render
from medgan.reports.results import read_results
from tests.reports.folder import EXTRACTOR, FIDS, IDENTITY, evaluation, lines, make_run, png, provenance, sheet, ticks, write

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = '<script>alert("x")</script> & </td>"\''


class Page(HTMLParser):
    """Parses strictly: every tag that opens must close in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} stands twice"
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def page(path) -> Page:
    return parse(path.read_text(encoding="utf-8"))


def quick(run, **options) -> Page:
    """The report without its curves, whose drawing takes a second."""
    return parse(render(read_results(run), Drawn(curves=[], worst=[], walk=None), **options))


def parse(html: str) -> Page:
    parser = Page()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    return build_report(run, tmp_path_factory.mktemp("out") / "report.html", include_real_examples=True)


def test_nothing_is_loaded_from_anywhere(report):
    parsed = page(report)
    assert not {"script", "link", "iframe", "object", "embed", "video", "audio", "base", "form"} & {tag for tag, _ in parsed.tags}
    for tag, attrs in parsed.tags:
        for name, value in attrs.items():
            assert not name.startswith("on"), f"{tag} has a handler"
            assert "://" not in (value or "")
            if name in ("src", "href", "srcset", "action", "data"):
                assert value.startswith(("data:image/png;base64,", "#")), f"{tag} {name} leaves the file"
    style = re.search(r"<style>(.*?)</style>", report.read_text(encoding="utf-8"), re.S)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_a_reader_with_a_screen_reader_gets_it_too(report):
    parsed = page(report)
    assert parsed.all("html") == [{"lang": "en"}]
    assert len(parsed.all("title")) == len(parsed.all("main")) == parsed.headings.count("h1") == 1
    levels = [int(tag[1]) for tag in parsed.headings]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels)), "a heading level is skipped"
    assert all(len(image["alt"]) > 20 for image in parsed.all("img"))
    assert all(cell.get("scope") in ("row", "col") for cell in parsed.all("th"))
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in parsed.all("a")} <= set(ids)


@pytest.mark.parametrize("state", ["good", "look", "bad", "missing"])
def test_words_on_colour_have_the_contrast_wcag_asks_for(report, state):
    css = report.read_text(encoding="utf-8")
    found = re.search(rf"\.{state} {{ color: #(\w{{6}}); background: #(\w{{6}}); }}", css)
    assert found
    light, dark = sorted((luminance(found[2]), luminance(found[1])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = np.array([int(colour[n : n + 2], 16) for n in (0, 2, 4)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_every_number_is_the_folders(report):
    text = page(report).text
    for kimg, fid in FIDS:
        assert f"{kimg:g}" in text
        assert f"{fid:.2f}" in text
    expected = [
        "208.55",
        "from 500 synthetic images instead of 50,000",
        "Real images 92",
        "Synthetic images 500",
        EXTRACTOR,
        IDENTITY,
        "c0" * 32,
        "d7" * 32,
        "tf1",
        "FID_FEW_IMAGES 92 real images: a smoke figure.",
        "2 patients: below 30",
        "Held out, by patient 5 images",
        "Images 92",
        "Patients 2",
        "slice without the label 40",
        "duplicate 3",
        "L 50 / W 350: −125 HU becomes black, 225 HU white",
        "3 × 3 × 3 mm; 0.977 × 0.977 × 2 mm",
        "64 × 64 pixels",
        "Plane axial",
        "64 images are stored",
        "truncation psi 0.7",
        "2 kimg were trained, that is 2,000 images shown",
        "The network kept is the one after 1.5 kimg. Its fid50k_full, 212.47, is the lowest of 4 measured during training.",
        "Distance of samples 0.9 of 64 samples at 2 kimg, relative to as many real images",
        "Distance to the nearest sample 0.8",
        "W_DATASET 2 patients: below 30",
        "docker run --rm --network none --user $(id -u):$(id -g) --gpus all -v SCANS:/input:ro -v RESULTS:/output -v SCRATCH:/work "
        "medgan:0.1.0 train --recipe ct-liver --size 64 --preset standard --seed 7 --mask-name 'left lobe'",
        "requirements.lock " + "1c" * 32,
        "medgan, the code Apache-2.0.",
        "inception-2015-12-05, which measured Apache-2.0 (Google).",
        "They were truncated (psi 0.7)",
        "2 patients cannot stand for a population",
        "Grey values outside the window were cut off",
        "Each image stands alone.",
        "1.5 (kept)",
        "torch 2.13.0",
        "seed 7",
        "2026-01-31T12:07:10Z",
        "medgan prepare SCANS DATA.zip --recipe ct-liver --mask-label 1 --window 50 350 --size 64 --plane axial",
        "medgan train --data DATA.zip --out NEW_RUN --config RUN/config.json",
        "medgan generate --bundle RUN/bundle --out IMAGES --seeds 0-63 --psi 0.7",
        "medgan evaluate --real DATA.zip --bundle RUN/bundle --out metrics.json --metrics fid50k_full --resize tf1 --n-fake 500",
    ]
    missing = [words for words in expected if words not in text]
    assert missing == []


def test_it_says_whom_to_cite_and_what_not_to_do(report):
    text = page(report).text
    for words in ("2210.03786", "2308.02505", "2006.06676", "2211.02701", "1706.08500", "Apache-2.0", "not for diagnostic use"):
        assert words in text


def test_both_sheets_are_the_stored_pictures(run, report):
    found = {}
    for image in page(report).all("img"):
        found[image["alt"]] = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    for name, word in (("dataset/qc_sheet.png", "real training images"), ("synthetic/contact_sheet.png", "synthetic images made")):
        shown = next(picture for alt, picture in found.items() if word in alt)
        with Image.open(run / name) as stored:
            assert np.array_equal(np.asarray(shown), np.asarray(stored))
        assert shown.info == {}, "text chunks came along"


def test_equal_folders_give_equal_bytes(run, report, tmp_path):
    again = build_report(make_run(tmp_path / "copy"), tmp_path / "again.html", include_real_examples=True)
    assert again.read_bytes() == report.read_bytes()


def test_real_images_stay_out_unless_asked_for(run):
    parsed = quick(run)
    assert not [image for image in parsed.all("img") if "real training images" in image["alt"]]
    assert "The sheet of training images is not in this file" in parsed.text


def test_strings_of_the_run_are_text_never_markup(tmp_path):
    run = make_run(tmp_path / "run")
    write(run / "dataset/recipe.json", {"name": HOSTILE, "title": HOSTILE, "size": HOSTILE, "plane": HOSTILE})
    write(run / "dataset/fingerprint.json", {"advice": [HOSTILE, {"text": HOSTILE}]})
    write(run / "dataset/manifest.csv", "subject_key,plane,modality,spacing_mm,level,width\n" + 5 * "a,<b>,<i>,<u>,<s>,<s>\n")
    write(run / "dataset/excluded.csv", "reason\n<img src=x onerror=alert(1)>\n")
    result = evaluation(7.0)
    result["metrics"] |= {HOSTILE: {"value": 3.25, "<b>": "<i>"}}
    result |= {"resize": HOSTILE, "extractor": HOSTILE, "warnings": [{"code": HOSTILE, "text": HOSTILE}, HOSTILE]}
    write(run / "metrics.json", result)
    write(run / "config.json", {"kimg": 2.0, HOSTILE: HOSTILE, "seed": HOSTILE})
    lines(run / "stats.jsonl", [row | {HOSTILE: {"mean": None}} for row in ticks()])
    parsed = page(build_report(run, tmp_path / "report.html"))
    tags = {tag for tag, _ in parsed.tags}
    assert not {"script", "b", "i", "u", "s"} & tags
    assert all(image["src"].startswith("data:") for image in parsed.all("img"))
    assert 'alert("x")' in parsed.text


@pytest.mark.parametrize(
    ("job", "start"),
    [
        ({"settings": {"task": "train", "words": ["--seed", "3"]}, "versions": {"torch": "2.13.0+cpu"}}, "docker run --rm --network none --user $(id -u):$(id -g) -v"),
        ({"settings": {"task": "train", "words": ["--pretrained", "ffhq-256"]}}, "-v WEIGHTS:/weights:ro medgan:"),
        ({"settings": {"words": ["--masks", "/data/QUELLWERT"]}}, ""),
        ({"settings": {"words": 3}}, ""),
        ({"settings": []}, ""),
    ],
)  # fmt: skip
def test_the_line_for_a_container_has_its_words_and_no_path(tmp_path, job, start):
    run = make_run(tmp_path / "run")
    write(run / "job.json", job)
    text = quick(run).text
    assert start in text
    assert ("docker run" in text) == bool(start)
    assert "QUELLWERT" not in text


def test_networks_that_were_begun_with_bring_their_licence(tmp_path):
    run = make_run(tmp_path / "run")
    licence = "NVIDIA Source Code Licence: research and evaluation only"
    write(run / "pretrained.json", {"kind": "stylegan2-ada-pytorch", "sha256": "ab" * 32, "licence": licence})
    text = quick(run).text
    assert (
        f"The first weights (stylegan2-ada-pytorch, SHA-256 {'ab' * 6}) {licence}; what was trained from them is bound by it too." in text
    )
    assert "arXiv:1812.04948" in text
    (run / "pretrained.json").unlink()
    assert "arXiv:1812.04948" not in quick(run).text


def test_paths_in_settings_are_masked(tmp_path):
    run = make_run(tmp_path / "run")
    write(
        run / "config.json",
        {"kimg": 2.0, "weights": "/data/QUELLWERT^JOHN/w", "resume": "~/quellwert", "metrics": ["fid", "C:\\quellwert"]},
    )
    path = build_report(run, tmp_path / "report.html")
    assert "quellwert" not in path.read_text(encoding="utf-8").lower()


def test_the_commands_repeat_settings_that_are_off(tmp_path):
    run = make_run(tmp_path / "run")
    prepared = PrepareConfig(held_out=0.0, pseudonym_key="doe.key", mask_label=-1)
    write(run / "dataset/run.json", provenance("prepare", prepared.shown(), {}))
    write(run / "synthetic/run.json", provenance("generate", {"seeds": "0-63", "psi": 0.0, "format": "zip"}, {}))
    text = quick(run).text
    for words in (
        "medgan prepare SCANS DATA.zip --recipe ct-liver --mask-label -1 --held-out 0 --pseudonym-key FILE",
        "medgan generate --bundle RUN/bundle --out IMAGES --seeds 0-63 --psi 0 ",
        "--resize tf1 --n-fake 500 --seed 0",
    ):
        assert words in text


def test_the_commands_name_no_path_of_masks(tmp_path):
    run = make_run(tmp_path / "run")
    write(run / "dataset/run.json", provenance("prepare", PrepareConfig(masks="/data/doe", mask_label=5).shown(), {}))
    text = quick(run).text
    assert "medgan prepare SCANS DATA.zip --recipe ct-liver --masks PATH --mask-label 5" in text
    assert "/data/doe" not in text


def test_a_recipe_for_every_slice_is_not_repeated_with_a_label(tmp_path):
    run = make_run(tmp_path / "run")
    write(run / "dataset/recipe.json", {"name": "ct-liver", "mask_label": 0, "size": 64})
    assert "--recipe ct-liver --mask-label -1 --size 64" in quick(run).text


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("walk/walk_strip.png", "The folder holds no walk between images."),
        ("metrics.json", "metrics.json: the final evaluation"),
        ("metrics.jsonl", "metrics.jsonl: FID during training"),
        ("stats.jsonl", "stats.jsonl: training curves"),
        ("config.json", "config.json: the settings of training"),
        ("run.json", "run.json: versions, seed and checksums of training"),
        ("dataset/manifest.csv", "dataset/manifest.csv: counts of images and patients"),
        ("dataset/excluded.csv", "dataset/excluded.csv: what was left out and why"),
        ("dataset/qc_sheet.png", ""),
        ("synthetic/contact_sheet.png", "The folder holds no readable sheet of synthetic images."),
        ("synthetic/manifest.csv", "synthetic/manifest.csv: the list of synthetic images"),
        ("bundle/configs/metadata.json", "bundle/configs/metadata.json: the trained generator"),
    ],
)
def test_a_missing_part_is_named(tmp_path, absent, words):
    run = make_run(tmp_path / "run")
    (run / absent).unlink()
    assert words in quick(run).text


@pytest.mark.parametrize(
    ("name", "words", "gone"),
    [
        ("metrics.json", "metrics.json (of a newer medgan: format 2, this one reads up to 1): upgrade medgan to read it", "208.55"),
        ("bundle/configs/metadata.json", "metadata.json (of a newer medgan: format 2, this one reads up to 1)", "d7" * 32),
    ],
)
def test_a_file_of_a_newer_medgan_is_named_and_not_read(tmp_path, name, words, gone):
    run = make_run(tmp_path / "run")
    stored = json.loads((run / name).read_text())
    for form, shown in ((1, True), (2, False)):
        stored.get("medgan", stored)["format"] = form
        write(run / name, stored)
        text = quick(run).text
        assert (gone in text, words in text) == (shown, not shown)


@pytest.mark.parametrize("only", ["config.json", "stats.jsonl", "metrics.jsonl", "metrics.json", "dataset", "synthetic", "bundle"])
def test_a_folder_with_one_part_still_has_a_report(tmp_path, only):
    run = make_run(tmp_path / "run")
    alone = tmp_path / "alone"
    alone.mkdir()
    (run / only).rename(alone / only)
    assert quick(alone).text.count("Missing") >= 1


def test_a_broken_picture_is_no_reason_to_fail(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("dataset/qc_sheet.png", "synthetic/contact_sheet.png"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: len(content) // 2])
    assert "no readable sheet of synthetic images" in quick(run).text


def test_the_last_snapshot_stands_in_for_images_not_generated(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "synthetic/contact_sheet.png").unlink()
    sheet(run / "snapshots/fakes000002.png", columns=2)
    sheet(run / "snapshots/fakes000002.5.png", columns=3)
    parsed = quick(run)
    assert [image["width"] for image in parsed.all("img") if "synthetic images made" in image["alt"]] == ["384"]
    assert "The last contact sheet of training" in parsed.text


def test_large_noisy_sheets_stay_below_five_megabytes(tmp_path):
    run = make_run(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    for name in ("dataset/qc_sheet.png", "synthetic/contact_sheet.png"):
        Image.fromarray(noise).save(run / name, compress_level=0)
    Image.fromarray(np.tile(noise[:512, :512], (1, 12, 1))).save(run / "walk/walk_strip.png")
    with zipfile.ZipFile(run / "synthetic/synthetic.zip", "w") as archive:
        for n in range(64):
            archive.writestr(f"{n:08d}.png", png(Image.fromarray(noise[8 * n : 8 * n + 256, :256])))
    path = build_report(run, tmp_path / "report.html", include_real_examples=True)
    assert path.stat().st_size < 5_000_000
    assert "full size: dataset/qc_sheet.png" in page(path).text


def test_a_long_training_shows_a_dozen_evaluations_with_the_chosen_one(tmp_path):
    run = make_run(tmp_path / "run")
    rows = [{"kimg": 4.0 * n, **evaluation(300 - n if n < 97 else 250 + n)} for n in range(1, 126)]
    lines(run / "metrics.jsonl", rows)
    write(run / "bundle/configs/metadata.json", {"medgan": {"kimg": 384.0}})
    text = quick(run).text
    assert "12 of 125 evaluations" in text
    assert "384 (kept) 204.00" in text
    assert "500 375.00" in text


def test_metrics_of_other_shapes_are_shown(tmp_path):
    run = make_run(tmp_path / "run")
    result = evaluation(208.55)
    result["metrics"] |= {
        "kid": {"value": 0.1066855, "interval": [0.09, 0.125], "subset_size": 100},
        "precision_recall": {"precision": 0.61, "recall": 0.27},
        "broken": {"value": None},
    }
    write(run / "metrics.json", result)
    text = quick(run).text
    assert "kid 0.1067 interval 0.09 to 0.125, subset size 100" in text
    assert "precision_recall: precision 0.61" in text
    assert "broken not a finite number" in text


@pytest.mark.parametrize(
    ("recipe", "shown"),
    [
        ({"intensity": "percentile", "percentiles": [0.5, 99.5]}, "Intensities percentiles 0.5 to 99.5 of each volume"),
        ({"intensity": "minmax"}, "Intensities whole range of each volume"),
        ({"intensity": "stored"}, "Intensities as stored"),
        ({}, "Intensities L 50 / W 350: −125 HU becomes black, 225 HU white"),
    ],
)
def test_the_way_from_values_to_grey_is_said(tmp_path, recipe, shown):
    run = make_run(tmp_path / "run")
    write(run / "dataset/recipe.json", recipe)
    assert shown in quick(run).text


def test_figures_and_citation_are_written_beside_it_when_asked(run, tmp_path):
    build_report(run, tmp_path / "report.html", figures=tmp_path / "figures", citation=tmp_path / "CITATION.md")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "ada_p.png",
        "curves.png",
        "diversity.png",
        "farthest.png",
        "fid.png",
        "latent_walk.png",
        "losses.png",
        "nearest.png",
        "scores.png",
    ]
    assert "arXiv:2210.03786" in (tmp_path / "CITATION.md").read_text(encoding="utf-8")


def test_a_target_that_cannot_be_written_is_the_users_problem(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder of the report"):
        build_report(run, tmp_path / "file" / "report.html")
    with pytest.raises(OutputError, match="is a folder"):
        build_report(run, tmp_path)
    with pytest.raises(OutputError, match="folder of the figures"):
        build_report(run, tmp_path / "report.html", figures=tmp_path / "file")
    with pytest.raises(OutputError, match="folder of the reporting pack"):
        build_report(run, tmp_path / "report.html", pack=tmp_path / "file")
    assert not (tmp_path / "report.html").exists()


def test_no_scan_key_reaches_the_report(run, report):
    text = report.read_text(encoding="utf-8")
    with (run / "dataset/manifest.csv").open(encoding="utf-8") as file:
        keys = {row[name] for row in csv.DictReader(file) for name in ("subject_key", "session_key", "series_key")}
    assert len(keys) == 7
    assert not [key for key in keys if key in text]


# --- a data check


def checked_run(run):
    """A folder of a data check: 92 slices of 2 patients, a piece of hostile advice, and two classes of GPU of which one is too small."""
    full = make_run(run / "full")
    (full / "dataset").rename(run / "dataset")
    write(run / "status.json", {"status": "checked"})
    write(run / "run.json", provenance("check", {"kimg": 2.0}, {"dataset": IDENTITY}))
    write(run / "dataset/inspection.json", {"advice": ["92 images: few", HOSTILE]})
    shared = {"seconds_per_kimg": 36.0, "device_bytes": 20_000_000_000, "error": [0.09, 0.3], "source": "published figures"}
    slow = {"hours": 20.0, "device_memory": 16_000_000_000, "fits": False, "largest_batch_gpu": 8}
    fast = {"hours": 2.5, "device_memory": 80_000_000_000, "fits": True, "largest_batch_gpu": 32}
    write(
        run / "plan.json",
        {"settings": {"kimg": 2.0}, "devices": {"t4": shared | slow, "h100": shared | fast, "damaged": {"hours": "many"}}},
    )
    return run


def test_a_data_check_has_advice_and_hours_and_misses_no_training(tmp_path):
    html = build_report(checked_run(tmp_path), tmp_path / "report.html").read_text()
    page = parse(html)
    words = " ".join(" ".join(page.words).split())
    assert "Data check, with advice" in words
    assert "2,000 images shown. Basis: published figures. Off by 9 % typically and 30 % at most" in words
    assert words.index("h100 2h30m 36 s 20.0 of 80 GB fits") < words.index(
        "t4 20h00m 36 s 20.0 of 16 GB too much: --batch-gpu 8 fits (same result)"
    )
    assert HOSTILE not in html
    assert "alert(" in words
    for absent in ("Not in this folder", "Synthetic images</h2>", "Figures of merit", "Privacy audit", "damaged"):
        assert absent not in html


def test_a_data_check_with_nothing_to_say(tmp_path):
    run = checked_run(tmp_path)
    write(run / "dataset/inspection.json", {"advice": []})
    (run / "plan.json").unlink()
    words = " ".join(parse(build_report(run, tmp_path / "report.html").read_text()).words)
    assert "Nothing looks wrong" in words
    assert "There is no prediction" in words
