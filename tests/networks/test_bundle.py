"""The bundle: what we write we read, MONAI opens, and nobody is fooled by a damaged one."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch

from medgan.errors import DataError, InputError
from medgan.networks.bundle import read_bundle, write_bundle
from medgan.networks.stylegan2 import Generator

ARGUMENTS = {
    "z_dim": 16,
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 32,
    "img_channels": 1,
    "channel_base": 256,
    "channel_max": 8,
    "mapping_layers": 2,
}


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    G = Generator(**ARGUMENTS).eval()
    write_bundle(tmp_path / "bundle", G, family="stylegan2", arguments=ARGUMENTS, details={"kimg": 1.5, "recipe": {"name": "ct-liver"}})
    return tmp_path / "bundle", G


def test_a_bundle_gives_back_its_generator(bundle):
    folder, G = bundle
    again, metadata = read_bundle(folder)
    z = torch.randn(3, 16)
    assert torch.equal(G(z, noise_mode="const"), again(z, noise_mode="const"))
    assert metadata["medgan"]["kimg"] == 1.5
    assert not any(p.requires_grad for p in again.parameters())


def test_a_zip_of_the_folder_opens_as_well(bundle, tmp_path):
    folder, G = bundle
    path = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    again, _ = read_bundle(tmp_path / "zipped.zip")
    assert zipfile.is_zipfile(path)
    assert torch.equal(G.synthesis.b4.const, again.synthesis.b4.const)


@pytest.mark.filterwarnings("ignore")
def test_monai_opens_it_and_samples(bundle):
    from monai.bundle import load

    folder, G = bundle
    network = load("bundle", bundle_dir=str(folder.parent), workflow_type="inference", source="github")
    module = network if isinstance(network, torch.nn.Module) else network.network_def
    assert torch.equal(module.state_dict()["synthesis.b4.const"], G.synthesis.b4.const)
    assert module(torch.randn(2, 16)).shape == (2, 1, 32, 32)


def test_wrong_bundles(bundle, tmp_path):
    folder, _ = bundle
    with pytest.raises(InputError, match="not a medgan bundle"):
        read_bundle(tmp_path)
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    newer = {**metadata, "medgan": {**metadata["medgan"], "format": 99}}
    (folder / "configs/metadata.json").write_text(json.dumps(newer))
    with pytest.raises(DataError, match="format 99") as error:
        read_bundle(folder)
    assert error.value.fix == "upgrade medgan"
    other = {**metadata, "medgan": {**metadata["medgan"], "arguments": {**ARGUMENTS, "channel_max": 4}}}
    (folder / "configs/metadata.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="do not fit"):
        read_bundle(folder)
    torn = {**metadata, "medgan": {**metadata["medgan"], "model_sha256": "00" * 32}}
    (folder / "configs/metadata.json").write_text(json.dumps(torn))
    with pytest.raises(DataError, match="not those its metadata names"):
        read_bundle(folder)
    (folder / "configs/metadata.json").write_text("{}")
    with pytest.raises(DataError, match="not written by medgan"):
        read_bundle(folder)
