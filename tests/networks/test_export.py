"""Exported networks compute what the bundle's do, and go back to the official code under its own names."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from safetensors import safe_open

from medgan.cli import main
from medgan.commands.import_network import import_network
from medgan.networks import dcgan
from medgan.networks.bundle import write_bundle
from medgan.networks.export import described, export_bundle, onnx_bytes, recordable, torchscript_bytes
from medgan.networks.nvidia import _said
from medgan.networks.shapes import discriminator_arguments, generator_arguments
from medgan.networks.stylegan2 import Discriminator, Generator
from tests.golden import Golden
from tests.networks.official import D_ARGUMENTS, G_ARGUMENTS, dumps, keywords, snapshot
from tests.networks.tiny import GENERATOR as SMALL

LIMIT = 1e-4
GENERATORS = {
    "grey": SMALL,
    "classes in colour": {**SMALL, "c_dim": 3, "img_channels": 3},
    "64 px": {**SMALL, "img_resolution": 64, "channel_base": 1024, "channel_max": 32},
    "residual and clamped": {**SMALL, "architecture": "resnet", "conv_clamp": 1.0},
    "original, without noise": {**SMALL, "architecture": "orig", "use_noise": False},
}
DCGANS = {size: {"z_dim": 8, "img_resolution": size, "img_channels": 1, "channel_base": 112, "channel_max": 16} for size in (28, 64)}


def generator(name: str) -> Generator:
    """With noise and a mean style: what an export may lose."""
    torch.manual_seed(1)
    G = Generator(**GENERATORS[name])
    with torch.no_grad():
        G.mapping.w_avg.normal_()
        for parameter, p in G.named_parameters():
            if parameter.endswith("noise_strength"):
                p.fill_(0.3)
    return G.eval().requires_grad_(False)


def dcgan_generator(size: int) -> dcgan.Generator:
    torch.manual_seed(1)
    G = dcgan.Generator(**DCGANS[size])
    for layer in G.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return G.eval().requires_grad_(False)


def run_torchscript(content: bytes):
    network = torch.jit.load(io.BytesIO(content))
    return lambda inputs: network(*inputs.values())


def run_onnx(content: bytes):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(["image"], {name: value.numpy() for name, value in inputs.items()})[0])


FORMS = {"torchscript": (torchscript_bytes, run_torchscript), "onnx": (onnx_bytes, run_onnx)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GENERATORS)
def test_an_export_draws_the_bundles_images_for_any_number_class_and_truncation(name, form):
    G = generator(name)
    write, load = FORMS[form]
    run = load(write(G, {"synthetic": "true"}))
    for n, psi in ((1, 1.0), (2, 0.5), (5, 0.0)):
        z = torch.randn(n, 16)
        label = torch.eye(3)[[i % 3 for i in range(n)]] if G.c_dim else None
        inputs = {"latent": z} | ({"label": label} if G.c_dim else {}) | {"truncation_psi": torch.tensor(psi)}
        expected = G(z, label, truncation_psi=psi, noise_mode="const")
        assert expected.shape == (n, G.img_channels, G.img_resolution, G.img_resolution)
        assert (run(inputs) - expected).abs().max() < LIMIT
    if name != "original, without noise":
        assert (expected - G(z, label, truncation_psi=psi, noise_mode="none")).abs().max() > 100 * LIMIT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", DCGANS)
def test_an_export_of_dcgan_likewise(size, form):
    G = dcgan_generator(size)
    assert list(recordable(G)[1]) == ["latent"]
    write, load = FORMS[form]
    run = load(write(G, {}))
    for n in (1, 3):
        z = torch.randn(n, 8)
        assert (run({"latent": z}) - G(z)).abs().max() < LIMIT


def small_bundle(folder: Path, name: str = "grey") -> Generator:
    G = generator(name)
    recipe = {"intensity": "window", "modality": "CT", "level": 50.0, "width": 350.0}
    write_bundle(folder, G, family="stylegan2", arguments=GENERATORS[name], details={"recipe": recipe})
    return G


@pytest.mark.filterwarnings("ignore")
def test_the_folder_says_what_it_is_in_every_form(tmp_path):
    G = small_bundle(tmp_path / "bundle")
    done = CliRunner().invoke(main, ["export", str(tmp_path / "bundle"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == set(json.loads(done.stdout)["files"])
    assert len(files) == 7
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "out", check=True, capture_output=True)
    assert len((tmp_path / "out/SHA256SUMS").read_text().splitlines()) == 6
    with safe_open(tmp_path / "out/generator.safetensors", "pt") as file:
        in_safetensors = file.metadata()
    model = onnx.load(tmp_path / "out/generator.onnx")
    in_onnx = {entry.key: entry.value for entry in model.metadata_props}
    extra = {"medgan.json": ""}
    torch.jit.load(tmp_path / "out/generator.torchscript", _extra_files=extra)
    facts = json.loads((tmp_path / "out/networks.json").read_text())["about"]
    assert in_safetensors == in_onnx == json.loads(extra["medgan.json"]) == facts
    assert facts["synthetic"] == "true"
    assert "not for diagnostic use" in facts["disclaimer"]
    assert json.loads(facts["window"])["intercept"] == -125
    assert "not for diagnostic use" in model.doc_string
    # Each weight once: nothing that a runtime can work out from them.
    assert sum(onnx.numpy_helper.to_array(each).size for each in model.graph.initializer) <= sum(t.numel() for t in G.state_dict().values())
    assert [(each.name, [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim]) for each in model.graph.input] == [
        ("latent", ["batch", 16]),
        ("truncation_psi", []),
    ]
    # Whoever has no medgan runs it: nothing but PyTorch is imported.
    code = (
        "import sys, torch; G = torch.jit.load('generator.torchscript'); x = G(latent=torch.zeros(1, 16), truncation_psi=torch.tensor(0.5));"
        "assert 'medgan' not in sys.modules; print(x.shape, float(x.sum()))"
    )
    answer = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert answer.stdout.startswith("torch.Size([1, 1, 32, 32])"), answer.stderr
    expected = G(torch.zeros(1, 16), truncation_psi=0.5, noise_mode="const")
    assert float(answer.stdout.split()[-1]) == pytest.approx(float(expected.sum()), abs=LIMIT * 1024)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """An official pickle, and the networks in it."""
    torch.manual_seed(3)
    G, D = Generator(**G_ARGUMENTS), Discriminator(**D_ARGUMENTS)
    ema = copy.deepcopy(G)
    with torch.no_grad():
        for tensor in ema.state_dict().values():
            if tensor.ndim != 2 or tensor.shape != (4, 4):
                tensor.add_(0.25)
    path = tmp_path_factory.mktemp("official") / "network.pkl"
    path.write_bytes(dumps(snapshot(G, D, ema, keywords(G_ARGUMENTS, D_ARGUMENTS, ada=False))))
    return path, ema, D


def test_an_official_network_comes_back_bit_for_bit_with_its_constructors_words(official, tmp_path):
    path, ema, D = official
    import_network(path, tmp_path / "bundle")
    export_bundle(tmp_path / "bundle", tmp_path / "out", ["safetensors"])
    shown = json.loads((tmp_path / "out/networks.json").read_text())
    for kind, before, function in (("generator", ema, generator_arguments), ("discriminator", D, discriminator_arguments)):
        after = safetensors.torch.load_file(tmp_path / "out" / shown[kind]["file"])
        assert after.keys() == before.state_dict().keys()
        for name, tensor in before.state_dict().items():
            assert torch.equal(after[name], tensor), name
        shapes = {name: tuple(tensor.shape) for name, tensor in after.items()}
        for repository, ada in (("stylegan3", False), ("stylegan2-ada-pytorch", True)):
            said = _said(shown[kind]["official"][repository], generator=kind == "generator", ada=ada)
            assert function(shapes, said).items() <= shown[kind]["arguments"].items()
    assert "NVIDIA Source Code Licence" in shown["about"]["licence"]


@pytest.mark.parametrize("name", ["g32_gray", "g32_rgb", "g32_cond", "g16_resnetG_origD_clamp", "g16_skipD_origG"])
def test_the_official_code_s_own_constructor_words_are_the_exported_ones(golden, name):
    """The manifests hold the keywords with which the official networks of the reference numbers were built."""
    reference = Golden(golden, name)
    G, D = reference.networks()
    for kind, network, prefix, words in (("generator", G, "G/", "G_kwargs"), ("discriminator", D, "D/", "D_kwargs")):
        state = reference.state(prefix)
        assert network.state_dict().keys() == state.keys()
        theirs = {k: v for k, v in reference.manifest[words].items() if k != "fused_modconv_default"}
        said = _said(theirs, generator=kind == "generator", ada=False)
        arguments = (generator_arguments if kind == "generator" else discriminator_arguments)(
            {k: tuple(v.shape) for k, v in state.items()}, said
        )
        ours = described(kind, "stylegan2", arguments)["official"]["stylegan3"]
        flat = {name: value for name, value in ours.items() if name not in ("mapping_kwargs", "epilogue_kwargs")}
        assert {k: flat[k] for k in theirs if k in flat} == {k: v for k, v in theirs.items() if k in flat}
        for nested in ("mapping_kwargs", "epilogue_kwargs"):
            assert theirs.get(nested, {}).items() <= ours.get(nested, {}).items()
        assert theirs.keys() <= ours.keys()


def test_without_the_package_onnx_one_line_names_the_extra(tmp_path, monkeypatch):
    small_bundle(tmp_path / "bundle")
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = CliRunner().invoke(main, ["export", str(tmp_path / "bundle"), str(tmp_path / "out")])
    assert done.exit_code == 2
    assert 'fix: pip install "medgan[export]", or --formats safetensors,torchscript' in done.stderr
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, ["export", str(tmp_path / "bundle"), str(tmp_path / "out"), "--formats", "safetensors"])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out/generator.onnx").exists()


def test_bad_input_is_one_line(tmp_path):
    small_bundle(tmp_path / "bundle")

    def export(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["export", *words, "--formats", "safetensors"])
        return done.exit_code, done.stderr.splitlines()[-1]

    code, line = export(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert code == 66
    assert line.startswith("ERROR E_INPUT")
    (tmp_path / "file").write_text("already here")
    code, line = export(str(tmp_path / "bundle"), str(tmp_path / "file"))
    assert code == 73
    assert line.startswith("ERROR E_OUTPUT")
    assert "cannot write OUT" in line
    assert (tmp_path / "file").read_text() == "already here"
    metadata = tmp_path / "bundle/configs/metadata.json"
    metadata.write_text(metadata.read_text().replace('"format": 1', '"format": 2'))
    code, line = export(str(tmp_path / "bundle"), str(tmp_path / "out"))
    assert code == 65
    assert line.endswith("fix: upgrade medgan")
    done = CliRunner().invoke(main, ["export", "a", "b", "--formats", "pickle"])
    assert done.exit_code == 2
    assert "--formats pickle is not a list of formats" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_an_older_one_and_leaves_other_files(tmp_path):
    small_bundle(tmp_path / "bundle")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/generator.safetensors").write_bytes(b"older")
    (tmp_path / "out/notes.txt").write_text("mine")
    export_bundle(tmp_path / "bundle", tmp_path / "out", ["safetensors"])
    assert safetensors.torch.load_file(tmp_path / "out/generator.safetensors")
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
