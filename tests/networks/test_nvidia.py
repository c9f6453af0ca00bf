"""Official network files: what they hold is read to the bit, and what does not fit together is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan.errors import WeightsError
from medgan.networks import tensorflow
from medgan.networks.nvidia import LICENCE, read_official
from medgan.networks.records import Array
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.networks.unpickle import read_pickle
from tests.conftest import GOLDEN
from tests.golden import FORWARD, Golden, assert_close
from tests.networks.official import (
    D_ARGUMENTS,
    G_ARGUMENTS,
    Call,
    EasyDict,
    Named,
    OldEasyDict,
    dumps,
    keywords,
    persistent,
    snapshot,
    tf_network,
)


def networks(**both) -> tuple[Generator, Discriminator, Generator]:
    torch.manual_seed(0)
    G = Generator(**{**G_ARGUMENTS, **both})
    return G, Discriminator(**{**D_ARGUMENTS, **both}), copy.deepcopy(G)


def written(path: Path, *args, protocol: int = 4, old_numpy: bool = False) -> Path:
    path.write_bytes(dumps(*args, protocol, old_numpy=old_numpy))
    return path


def official(
    path: Path, G, D, G_ema, *, ada: bool = True, protocol: int = 4, old_numpy: bool = False, easy: type = EasyDict, **changed
) -> Path:
    kwargs = keywords({**G_ARGUMENTS, "c_dim": G.c_dim}, D_ARGUMENTS, ada=ada, easy=easy)
    kwargs[0].update(changed)
    return written(path, snapshot(G, D, G_ema, kwargs, easy), protocol=protocol, old_numpy=old_numpy)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(("old_numpy", "easy"), [(True, OldEasyDict), (False, EasyDict)])
@pytest.mark.parametrize("ada", [True, False])
def test_every_tensor_of_both_repositories_comes_out_to_the_bit(tmp_path, protocol, old_numpy, easy, ada):
    made = networks()
    with torch.no_grad():
        made[2].mapping.w_avg.copy_(torch.randn(16))
    read = read_official(official(tmp_path / "x.pkl", *made, ada=ada, protocol=protocol, old_numpy=old_numpy, easy=easy))
    for found, module in zip((read.G, read.D, read.G_ema), made, strict=True):
        assert found.weights.keys() == module.state_dict().keys()
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in module.state_dict().items())
    assert {**read.G.arguments} == {
        **G_ARGUMENTS, "c_dim": 0, "architecture": "skip", "use_noise": True, "conv_clamp": None, "w_avg_beta": 0.995 if ada else 0.998
    }  # fmt: skip
    assert read.licence == LICENCE
    assert read.kind.startswith("stylegan2-ada-pytorch" if ada else "stylegan3")


def test_defaults_that_a_file_leaves_out_are_those_of_its_repository(tmp_path):
    made = networks()
    for ada, clamp in ((True, None), (False, 256)):
        G, D = keywords(G_ARGUMENTS, D_ARGUMENTS, ada=ada)
        (G["synthesis_kwargs"] if ada else G).pop("conv_clamp")
        D.pop("conv_clamp")
        read = read_official(written(tmp_path / "x.pkl", snapshot(*made, (G, D))))
        assert (read.G.arguments["conv_clamp"], read.D.arguments["conv_clamp"]) == (clamp, clamp)


@pytest.mark.parametrize("both", [{"architecture": "resnet"}, {"architecture": "orig"}, {"architecture": "skip"}, {"c_dim": 3}])
def test_other_configurations_are_seen_in_the_tensors(tmp_path, both):
    made = networks(**both)
    kwargs = keywords({**G_ARGUMENTS, **both}, {**D_ARGUMENTS, **both}, ada=False)
    if "architecture" in both:
        kwargs[0]["architecture"] = kwargs[1]["architecture"] = both["architecture"]
    read = read_official(written(tmp_path / "x.pkl", snapshot(*made, kwargs)))
    assert {name: read.D.arguments[name] for name in both} == both
    G, D = Generator(**read.G.arguments), Discriminator(**read.D.arguments)
    G.load_state_dict(read.G.weights)
    D.load_state_dict(read.D.weights)
    z, c = torch.randn(2, 16), torch.eye(3)[:2] if "c_dim" in both else None
    assert torch.equal(G(z, c, noise_mode="const"), made[0](z, c, noise_mode="const"))


def test_frozen_layers_are_read_though_they_are_buffers(tmp_path):
    G, _, ema = networks()
    D = Discriminator(**D_ARGUMENTS, freeze_layers=5)
    read = read_official(official(tmp_path / "x.pkl", G, D, ema))
    assert torch.equal(read.D.weights["b32.fromrgb.weight"], D.b32.fromrgb.weight)


def test_half_precision_weights_become_single(tmp_path):
    made = [network.half() for network in networks()]
    read = read_official(official(tmp_path / "x.pkl", *made))
    assert read.G.weights["synthesis.b4.const"].dtype == torch.float32
    assert torch.equal(read.G.weights["synthesis.b4.const"], made[0].synthesis.b4.const.float())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"img_resolution": 64}, "it says img_resolution 64, its tensors say 32"),
        ({"z_dim": 8}, "it says z_dim 8, its tensors say 16"),
        ({"channel_base": 512}, "channels"),
        ({"architecture": "resnet"}, "it says architecture resnet, its tensors say skip"),
        ({"conv_clamp": "no"}, "impossible conv_clamp"),
        ({"activation": "relu"}, "another activation"),
        ({"resample_filter": [1, 2, 1]}, "another resample_filter"),
        ({"mapping_kwargs": EasyDict(num_layers=3, lr_multiplier=0.1)}, "learning rate multiplier"),
        ({"mapping_kwargs": EasyDict(num_layers=3, layer_features=8)}, "another layer_features"),
        ({"magic\x1b[31m": 1}, r"magic\x1b[31m"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, changed, said):
    with pytest.raises(WeightsError) as error:
        read_official(official(tmp_path / "x.pkl", *networks(), ada=False, **changed))
    assert said in error.value.line
    assert "\x1b" not in error.value.line
    assert "\n" not in error.value.line


def test_damaged_networks_are_refused(tmp_path):
    G, D, ema = networks()
    with torch.no_grad():
        G.synthesis.b4.const[0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match="not finite"):
        read_official(official(tmp_path / "x.pkl", G, D, ema))
    G, D, ema = networks()
    del G.synthesis.b8._buffers["resample_filter"]
    with pytest.raises(WeightsError, match=r"synthesis.b8.resample_filter is missing instead of 4 x 4"):
        read_official(official(tmp_path / "x.pkl", G, D, ema))
    G, D, ema = networks()
    G.synthesis.b8.register_buffer("extra", torch.zeros(2))
    with pytest.raises(WeightsError, match="1 tensors that a StyleGAN2 network has not"):
        read_official(official(tmp_path / "x.pkl", G, D, ema))
    G, D, ema = networks()
    D.b16.resample_filter.fill_(1 / 16)
    with pytest.raises(WeightsError, match="resampling filter"):
        read_official(official(tmp_path / "x.pkl", G, D, ema))
    G, D, ema = networks()
    G.synthesis.b8.conv0.noise_const = torch.zeros(8, 8, dtype=torch.int32)
    with pytest.raises(WeightsError, match="IntStorage"):
        read_official(official(tmp_path / "x.pkl", G, D, ema))


def test_a_stylegan3_generator_is_named(tmp_path):
    G, D, ema = networks()
    G.synthesis.register_module("L0_36_16", torch.nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="stylegan3-t or -r"):
        read_official(official(tmp_path / "x.pkl", G, D, ema))


def test_strided_tensors_come_out_as_they_were(tmp_path):
    G, D, ema = networks()
    weight = torch.randn(16, 16, 3, 3)
    G.synthesis.b8.conv1.weight = torch.nn.Parameter(weight.to(memory_format=torch.channels_last))
    read = read_official(official(tmp_path / "x.pkl", G, D, ema))
    assert torch.equal(read.G.weights["synthesis.b8.conv1.weight"], weight)


def test_what_the_official_converter_records_of_a_tensorflow_network_is_understood(golden, tmp_path):
    """The keywords of the reference file: every one given, the discriminator's mapping without layers and with another rate."""
    manifest = Golden(golden, "legacy_tf").manifest
    said_of_G, said_of_D = manifest["G_kwargs"], manifest["D_kwargs"]
    shape = {name: said_of_D[name] for name in ("c_dim", "img_resolution", "img_channels", "channel_base", "channel_max")}
    G = Generator(**shape, z_dim=32, w_dim=32, mapping_layers=4)
    D = Discriminator(**shape, mapping_layers=0)

    def easy(value):
        return EasyDict({k: easy(v) for k, v in value.items()}) if isinstance(value, dict) else value

    read = read_official(written(tmp_path / "x.pkl", snapshot(G, D, copy.deepcopy(G), (easy(said_of_G), easy(said_of_D)))))
    assert (read.G.arguments["w_avg_beta"], read.D.arguments["mapping_layers"]) == (0.995, 0)
    assert read.G.arguments["conv_clamp"] is None


# --- TensorFlow


def _manifest() -> dict:
    path = GOLDEN / "legacy_tf.json"
    return json.loads(path.read_text()) if path.exists() else {"arrays": {}}


VARIABLES = [name for name in _manifest()["arrays"] if name.startswith(("G/", "G.", "D/"))]


@pytest.mark.parametrize("key", VARIABLES)
def test_a_tensorflow_variable_becomes_what_the_official_converter_makes_of_it(golden, key):
    ref = Golden(golden, "legacy_tf")
    name = key.removeprefix("G/").removeprefix("G.").removeprefix("D/")
    ours = (tensorflow.discriminator_name if key.startswith("D/") else tensorflow.generator_name)(name, 32)
    value = ref[key].numpy()
    found = tensorflow.tensor(name, Array("f4", value.shape, False, memoryview(value.tobytes())))
    expected = f"torch/{key[0]}/{ours}"
    total = found.double().sum()
    # The reference was summed in float32: rounding is relative to the sum of magnitudes.
    assert abs(float(total) - float(ref[f"{expected}/sum"])) <= 1e-6 * max(float(found.abs().sum()), 1)
    assert_close(found.flatten()[:4], ref[f"{expected}/first"].flatten().float(), 0)


def _tf_file(golden: Path, path: Path, protocol: int = 3, old_numpy: bool = True, **settings) -> tuple[Golden, Path]:
    ref = Golden(golden, "legacy_tf")
    if ref.is_part:
        pytest.skip("the whole TensorFlow network is only in the developers' shared folder")

    def named(prefix: str) -> list:
        return [(name[len(prefix) :], ref.arrays[name]) for name in ref.names(prefix)]

    parts = {name: tf_network(name, {}, named(f"G.{name}/")) for name in ("mapping", "synthesis")}
    G = tf_network("G", {**ref.manifest["static_kwargs_G"], **settings}, named("G/"), parts)
    D = tf_network("D", ref.manifest["static_kwargs_D"], named("D/"))
    return ref, written(path, (G, D, G), protocol=protocol, old_numpy=old_numpy)


@pytest.mark.parametrize(("protocol", "old_numpy"), [(2, True), (3, True), (4, False)])
def test_a_legacy_file_gives_the_official_converters_images_and_logits(golden, tmp_path, protocol, old_numpy):
    ref, path = _tf_file(golden, tmp_path / "x.pkl", protocol, old_numpy)
    read = read_official(path)
    converted = {name.split("/", 2)[2].rsplit("/", 1)[0] for name in ref.names("torch/G/")}
    assert set(read.G.weights) == converted
    assert set(read.D.weights) == {name.split("/", 2)[2].rsplit("/", 1)[0] for name in ref.names("torch/D/")}
    G, D = Generator(**read.G_ema.arguments), Discriminator(**read.D.arguments)
    G.load_state_dict(read.G_ema.weights)
    D.load_state_dict(read.D.weights)
    assert read.kind == "legacy TensorFlow"
    assert_close(G(ref["in/z"], ref["in/c"], noise_mode="const"), ref["out/img"], FORWARD)
    assert_close(D(ref["out/img"], ref["in/c"]), ref["out/logits"], FORWARD)


def test_legacy_settings_that_are_not_known_are_refused(golden, tmp_path):
    for settings, said in (
        ({"fused_modconv": True, "truncation_psi": 0.5}, ""),
        ({"blend": 3}, "the setting blend"),
        ({"resample_kernel": [1, 2, 2, 1]}, "resampling filter"),
        ({"mapping_lrmul": 0.1}, "learning rate multiplier"),
        ({"resolution": 64}, "img_resolution 64"),
        ({"resolution": 10**9}, "impossible resolution"),
    ):
        _, path = _tf_file(golden, tmp_path / "x.pkl", **settings)
        if not said:
            read_official(path)
            continue
        with pytest.raises(WeightsError) as error:
            read_official(path)
        assert said in error.value.line


def test_old_names_of_the_image_layers():
    assert tensorflow.generator_name("synthesis/ToRGB_lod0/weight", 256) == "synthesis.b256.torgb.weight"
    assert tensorflow.generator_name("synthesis/ToRGB_lod2/mod_bias", 256) == "synthesis.b64.torgb.affine.bias"
    assert tensorflow.discriminator_name("FromRGB_lod1/bias", 256) == "b128.fromrgb.bias"
    assert [tensorflow.generator_name(f"synthesis/noise{i}", 32).split(".", 1)[1] for i in range(4)] == [
        "b4.conv1.noise_const", "b8.conv0.noise_const", "b8.conv1.noise_const", "b16.conv0.noise_const"
    ]  # fmt: skip
    assert tensorflow.generator_name("synthesis/lod", 256) == ""


def test_a_numpy_scalar_is_a_tensorflow_variable(tmp_path):
    state = np.float32(1.5)
    value, _ = read_pickle(dumps([state]))
    assert value == [1.5]


def test_other_files_are_named(tmp_path):
    for content, said in (
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x1f\x8b\x08rest", "compressed"),
        (b"", "truncated"),
        (b"<html>sign in</html>", "does not begin"),
        (dumps({"G_ema": None}), "no generator"),
        (dumps({"G": Call(Named("collections", "OrderedDict")), "D": 1, "G_ema": 2}), "no generator"),
        (dumps((1, 2, 3)), "no generator"),
    ):
        (tmp_path / "x.pkl").write_bytes(content)
        with pytest.raises(WeightsError) as error:
            read_official(tmp_path / "x.pkl")
        assert said in error.value.line
        assert error.value.exit_code == 69
    buffer = tmp_path / "old.pt"
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"a torch.save file"):
        read_official(buffer)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_official(tmp_path)


def test_persistent_modules_need_names_for_their_arguments(tmp_path):
    G, D, ema = networks()
    value = snapshot(G, D, ema, keywords(G_ARGUMENTS, D_ARGUMENTS, ada=True))
    broken = persistent(G, init_kwargs={})
    broken.meta["state"]["_init_args"] = (512,)
    with pytest.raises(WeightsError, match="constructor arguments are not named"):
        read_official(written(tmp_path / "x.pkl", {**value, "G": broken}))
