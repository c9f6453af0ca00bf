"""The commands of the documents run as they stand there, page by page, on phantoms and small networks.

A block of commands that carries no mark is run: here, or by the test that ELSEWHERE names. A mark is a line above the block, with the reason:

    <!-- not run: twenty trainings of days; tests/commands/test_ablate.py runs the same on small ones -->

or a paragraph that begins with "*Not" where readers should know. What is not run is still read, by test_docs_commands.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from medgan.cli import main
from tests.conftest import ROOT
from tests.data import layouts
from tests.metrics.pretrained import fetched, inception
from tests.phantoms import ct_nifti
from tests.test_docs_commands import PAGES, blocks

ELSEWHERE = {
    "how-to/dgx.md": "tests/plugin/test_docker_how_to.py",
    "how-to/xnat.md": "tests/plugin/test_docker_how_to.py",
    "how-to/other-platforms.md": "tests/plugin/test_docker_how_to.py",
    "how-to/new-metric.md": "tests/test_docs_extending.py",
    "how-to/new-recipe.md": "tests/test_docs_extending.py",
    "how-to/new-family.md": "tests/test_docs_extending.py",
}
HERE = [page for page in PAGES if blocks(page) and page not in ELSEWHERE]

# What makes a command small, behind its own words: of an option that is given twice the last counts.
NETWORK = ["--channel-base", "256", "--channel-max", "8"]
STYLED = ["--latent", "8", "--map-layers", "2"]
SHORT = ["--kimg", "0.008", "--batch", "4", "--metrics", "", "--tick-kimg", "0.004"]


def smaller(words: Sequence[str]) -> list[str]:
    """The words of a command, and those that make it one of seconds."""
    network = [*NETWORK, *STYLED]
    if "--pretrained" in words:
        network = []
    elif "paper-2308.02505" in words:
        network = NETWORK
    more = {
        "prepare": ["--workers", "1", *(["--size", "32"] if {"--size", "ct-liver"} & {*words} else [])],
        "train": [*SHORT, *network, *(["--kid-images", "8"] if "--kid-every" in words else [])],
        "plan": network if "--calibrate" in words else [],
        "generate": ["--style-mix", "10-11"] if "--style-mix" in words else ["--seeds", "0-3"],
        "evaluate": ["--n-fake", "8", "--no-intervals"],
        "audit": ["--features", "thumbnails"],
    }
    return [*words, *more.get(words[0], [])]


def made_by(words: Sequence[str]) -> list[Path]:
    """What a command of medgan writes."""
    outs = [Path(words[at + 1]) for at, word in enumerate(words) if word == "--out"]
    if words[0] in ("prepare", "import", "export"):
        outs.append(Path(words[2]))
    return [path for out in outs for path in (out, out.with_suffix(".info"), out.with_suffix(".held-out.zip"))]


def run(text: str, **more: str) -> None:
    """Run the lines of a block, each one command of medgan, in this process and in the working directory.

    Args:
        text: The block.
        more: Values of further options, which are last.
    """
    options = [word for name, value in more.items() for word in (f"--{name.replace('_', '-')}", value)]
    for line in text.replace("\\\n", " ").splitlines():
        words = [re.sub(r"^~/", "home/", word) for word in shlex.split(line, comments=True)]
        if not words or words == [".", ".venv/bin/activate"]:
            continue
        assert words.pop(0) == "medgan", f"no test runs this: mark the block, or its page in ELSEWHERE: {line}"
        # What the page makes itself is not taken for what was there.
        for path in made_by(words):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        with pytest.raises(SystemExit) as end:
            main.main([*smaller(words), *options], prog_name="medgan")
        assert end.value.code == 0, line


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: scans, data sets as they are published, a dataset, a trained run, a network file of others."""
    root = tmp_path_factory.mktemp("docs")
    for patient in range(2):
        ct_nifti(root / "scans" / f"patient-{patient}", shift=patient)
        ct_nifti(root / ".cache" / "demo-scans" / f"patient-{patient}", shift=patient, label=5)
    shutil.copytree(root / "scans", root / "SCANS")
    layouts.sliver07(root / "sliver07")
    table = layouts.chest_xray14(root / "ChestXray14") / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Hernia", "Effusion"))
    layouts.acdc(root / "ACDC" / "training")
    layouts.msd_brain(root)
    layouts.fashion_mnist(root / "fashion")
    for name, classes, size, channels in (("pneumoniamnist", 2, 28, 0), ("octmnist_64", 4, 64, 0), ("bloodmnist", 8, 28, 3)):
        layouts.medmnist(root / f"{name}.npz", classes=classes, size=size, channels=channels)
    network_of_others(root / "home" / "networks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MEDGAN_DEVICE", "cpu")
        fill()
    return root


def fill() -> None:
    """The liver's dataset, and a run on it."""
    run("medgan prepare scans liver.zip --recipe ct-liver --mask-label 1\nmedgan train --data liver.zip --out runs/liver")
    run("medgan generate --bundle runs/liver/bundle --out runs/liver/synthetic")
    shutil.copytree("runs/liver", "run")
    shutil.copy("liver.zip", "data.zip")
    shutil.copy("run/synthetic/synthetic.zip", "synthetic.zip")


def network_of_others(folder: Path) -> None:
    """Files of the official structure under the names that the pages use."""
    import torch

    from medgan.networks.stylegan2 import Discriminator, Generator
    from tests.networks.official import dumps, keywords, snapshot

    torch.manual_seed(3)
    shape = {"img_resolution": 32, "img_channels": 3, "channel_base": 128, "channel_max": 8}
    of_G = {"z_dim": 16, "w_dim": 16, "mapping_layers": 3}
    G, D = Generator(**shape, **of_G), Discriminator(**shape)
    folder.mkdir(parents=True)
    for name in ("ffhq-256.pkl", "ffhq-512.pkl"):
        (folder / name).write_bytes(dumps(snapshot(G, D, G, keywords({**shape, **of_G}, shape, ada=True))))


@pytest.fixture
def here(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of them as working directory."""
    shutil.copytree(things, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    yield tmp_path / "page"
    shutil.rmtree(tmp_path / "page")


@pytest.mark.parametrize("page", HERE)
def test_the_commands_of_a_page_run(page: str, here: Path, things: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDGAN_DEVICE", "cpu")
    text = "".join(blocks(page))
    if re.search(r"medgan evaluate|--kid-every", text):
        monkeypatch.setenv("MEDGAN_WEIGHTS", str(inception().parent))
    if "ppl2_wend" in text:
        fetched("lpips-vgg16")
    # Features of the real images too, which the next page has.
    monkeypatch.setenv("MEDGAN_CACHE", str(things / "cache"))
    for block in blocks(page):
        run(block)


def test_a_page_whose_commands_another_test_runs_is_named_there():
    for page, test in ELSEWHERE.items():
        assert blocks(page), page
        assert page in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not name {page}"


@pytest.mark.parametrize("page", PAGES)
def test_a_mark_says_why(page: str):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    marks = re.findall(r"^<!-- not run(.*)$", text, re.M)
    assert all(re.fullmatch(r": .{15,} -->", mark) for mark in marks), marks
    # A mark that stands over nothing marks nothing.
    assert len(re.findall(r"^<!-- not run: .* -->\n+```(?:sh|bash)$", text, re.M)) == len(marks)
