"""Every operation against the reference numbers, and what the numbers do not cover: second derivatives, hand-worked values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from medgan.networks import ops
from tests.conftest import GOLDEN
from tests.golden import FORWARD, Golden, assert_close


def _names(prefix: str) -> list[str]:
    return [n for n in json.loads((GOLDEN / "ops.json").read_text())["arrays"] if n.startswith(prefix)]


@pytest.fixture(scope="module")
def ref(golden: Path) -> Golden:
    return Golden(golden, "ops")


def _filter(ref: Golden, name: str | None) -> torch.Tensor:
    return ops.setup_filter(None) if name is None else ops.setup_filter(ref[f"filter/{name}/in"])


@pytest.mark.parametrize("name", [n.split("/")[1] for n in _names("filter/") if n.endswith("/in")])
def test_filters_are_normalised_as_the_reference(ref, name):
    assert_close(_filter(ref, name), ref[f"filter/{name}/out"], 1e-6)


def test_filter_gain_and_no_normalisation(ref):
    taps = ref["filter/f1331/in"]
    assert_close(ops.setup_filter(taps, gain=4), ref["filter/f1331_gain4/out"], 1e-6)
    assert_close(ops.setup_filter(taps, normalize=False), ref["filter/f1331_nonorm/out"], 1e-6)


@pytest.mark.parametrize("name", [n for n in _names("upfirdn/") if n not in ("upfirdn/x", "upfirdn/x_big")])
def test_upfirdn(ref, name):
    entry = ref.manifest["arrays"][name]
    kind = name.split("/")[1].split("_")[0]
    f = _filter(ref, entry["filter"])
    if kind in ("filter2d", "upsample2d", "downsample2d") and "padneg" not in name:
        actual = getattr(ops, kind)(ref["upfirdn/x"], f)
    elif "padneg" in name:
        actual = ops.downsample2d(ref["upfirdn/x_big"], f, padding=-6, flip_filter=True)
    else:
        kwargs = entry["kwargs"]
        actual = ops.upfirdn2d(ref["upfirdn/x"], f, **kwargs)
    assert_close(actual, ref[name], 1e-5)


@pytest.mark.parametrize("act", list(ops.ACTIVATIONS))
def test_activations(ref, act):
    assert_close(ops.bias_act(ref["bias_act/x"], ref["bias_act/b"], act=act), ref[f"bias_act/{act}"], 1e-6)


def test_clamp_comes_after_the_gain(ref):
    x, b = ref["bias_act/x"], ref["bias_act/b"]
    assert_close(ops.bias_act(x, b, act="lrelu", gain=2**0.5 * 0.5, clamp=0.75), ref["bias_act/lrelu_gain_clamp"], 1e-6)
    assert_close(ops.bias_act(x, clamp=1), ref["bias_act/linear_nobias_clamp"], 1e-6)


@pytest.mark.parametrize(
    ("name", "up", "demodulate", "noisy"),
    [("k3", 1, True, True), ("k3_up2", 2, True, True), ("k1_nodemod", 1, False, False), ("k3_nodemod", 1, False, False)],
)
def test_modulated_convolution(ref, name, up, demodulate, noisy):
    x, w, s, noise = (ref[f"modconv/{name}/{part}"] for part in ("x", "w", "s", "noise"))
    y = ops.modulated_conv2d(x, w, s, ops.setup_filter([1, 3, 3, 1]), up=up, demodulate=demodulate, noise=noise if noisy else None)
    assert_close(y, ref[f"modconv/{name}/out_fused"], FORWARD)
    assert_close(y, ref[f"modconv/{name}/out_nonfused"], 1e-5)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("k3_up2", {"up": 2}), ("k3_down2", {"down": 2}), ("k1_down2", {"down": 2}), ("k1_up2", {"up": 2}), ("k3_plain", {})],
)
def test_convolution_with_resampling(ref, name, kwargs):
    y = ops.resample_conv2d(ref["resample/x"], ref[f"resample/{name}/w"], ops.setup_filter([1, 3, 3, 1]), **kwargs)
    assert_close(y, ref[f"resample/{name}/out"], 1e-5)


@pytest.mark.parametrize(("name", "group", "channels"), [("g4_f1", 4, 1), ("g2_f2", 2, 2), ("g8_f3", 8, 3), ("gNone_f1", None, 1)])
def test_minibatch_std(ref, name, group, channels):
    assert_close(ops.minibatch_std(ref["mbstd/x"], group, channels), ref[f"mbstd/{name}"], 1e-6)


def test_minibatch_std_by_hand():
    # Groups of two are samples (0, 2) and (1, 3): deviations 1 and 0 of means 1 and 5.
    x = torch.tensor([0.0, 5.0, 2.0, 5.0]).reshape(4, 1, 1, 1)
    assert_close(ops.minibatch_std(x, 2).flatten(), torch.tensor([1.0, 1e-4, 1.0, 1e-4]), 1e-6)


def test_second_moment(ref):
    assert_close(ops.normalize_2nd_moment(ref["norm2/x"]), ref["norm2/out"], 1e-6)


def test_a_filter_with_even_taps_moves_a_pixel_as_worked_out_by_hand():
    # One pixel of value 64 at 2 through outer([1,3,3,1])/64 with pads (2, 1): padded it stands at 4, so outputs 1..4 see taps 3..0.
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 64
    y = ops.filter2d(x, ops.setup_filter([1, 3, 3, 1]))[0, 0]
    assert y[2].tolist() == [0, 3, 9, 9, 3]
    assert y[1].tolist() == [0, 1, 3, 3, 1]


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_filters_differentiate_twice(up, down):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    f = ops.setup_filter([1, 3, 3, 1]).double()

    def run(x: torch.Tensor) -> torch.Tensor:
        return ops.upfirdn2d(x, f, up=up, down=down, padding=(2, 1, 1, 2)).square()

    assert gradcheck(run, (x,))
    assert gradgradcheck(run, (x,))
