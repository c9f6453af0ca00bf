"""The augmentation pipeline and its controller against the reference numbers of the official code."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from medgan.training.augment import SYM6, Augment, Controller, filter_bank
from medgan.training.config import PIPES
from tests.conftest import GOLDEN
from tests.golden import Golden, assert_close


class Percentile:
    """Every value at one quantile and every gate open, as the reference's debug mode defines it (no sqrt 2 in the normal)."""

    def __init__(self, q: float) -> None:
        self.q = q

    def uniform(self, name, shape):
        return torch.full(shape, 0.5 if name == "rotate_post" else self.q)

    def normal(self, name, shape):
        return torch.full(shape, self.q if name == "noise" else 2 * self.q - 1).erfinv()

    def gate(self, name, shape):
        return torch.full(shape, -1.0)


class Tape:
    """Replays recorded draws in their recorded order, and fails on any other order."""

    def __init__(self, ref: Golden, case: str) -> None:
        self.draws = [(n.split("/")[-1][3:], ref[n]) for n in sorted(ref.names(f"tape/{case}/draw/"))]

    def _next(self, name: str, shape):
        recorded, value = self.draws.pop(0)
        assert recorded == name
        return value.reshape(shape)

    def uniform(self, name, shape):
        return self._next("cutout.center" if name == "cutout" else f"{name}.value", shape)

    def normal(self, name, shape):
        return self._next(name if name.endswith(".image") else f"{name}.value", shape)

    def gate(self, name, shape):
        return self._next(f"{name}.gate", shape)


def _fixed_cases() -> list[str]:
    return [n for n in json.loads((GOLDEN / "augment.json").read_text())["arrays"] if "/q" in n and n.startswith("c")]


@pytest.fixture(scope="module")
def ref(golden) -> Golden:
    return Golden(golden, "augment")


@pytest.mark.parametrize("name", _fixed_cases())
def test_each_transformation_at_fixed_percentiles(ref, name):
    source, transform, q = name.split("/")
    pipe = Augment(PIPES.get(transform, (transform,)), p=1.0)
    assert_close(pipe(ref[f"{source}/in"], Percentile(float(q[1:]))), ref[name], 1e-4)


@pytest.mark.parametrize("case", ["c3_32x32", "c1_32x32", "c3_24x40"])
def test_recorded_draws_in_the_official_order(ref, case):
    tape = Tape(ref, case)
    out = Augment(PIPES["bgcfnc"], p=0.6)(ref[f"tape/{case}/in"], tape)
    assert not tape.draws
    assert_close(out, ref[f"tape/{case}/out"], 1e-4)


@pytest.mark.parametrize("q", ["0.25", "0.8"])
def test_noise(ref, q):
    class WithNoise(Percentile):
        def normal(self, name, shape):
            return ref[f"noise/q{q}/unit_noise"] if name == "noise.image" else super().normal(name, shape)

    out = Augment(["noise"], p=1.0)(ref["c3/in"], WithNoise(float(q)))
    assert_close(out, ref[f"noise/q{q}/out"], 1e-5)


def test_filters(ref):
    assert_close(torch.tensor(SYM6) / sum(SYM6), ref["const/Hz_geom"], 1e-6)
    assert_close(filter_bank(), ref["const/Hz_fbank"], 1e-6)


def test_gradient_of_the_whole_pipeline(ref):
    x = ref["c3/in"].requires_grad_()
    (Augment(PIPES["bgcf"], p=1.0)(x, Percentile(0.7)) * ref["vjp/v"]).sum().backward()
    assert_close(x.grad, ref["vjp/grad"], 1e-4)


def test_the_pipeline_differentiates_twice():
    torch.manual_seed(0)
    pipe = Augment(PIPES["bgc"], p=1.0)
    pipe.lowpass = pipe.lowpass.double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)

    def run(x):
        return pipe(x, Percentile(0.62)).square()

    assert gradcheck(run, (x,))
    assert gradgradcheck(run, (x,), atol=1e-4)


def test_p_zero_leaves_images_alone():
    x = torch.randn(2, 1, 32, 32)
    assert Augment(PIPES["bgc"], p=0.0)(x) is x


def test_a_flip_alone_mirrors_the_picture():
    # A smooth picture: the wavelet pair is not symmetric, so sharp detail does not flip exactly (nor in the reference).
    x = torch.linspace(0, 1, 32).expand(1, 1, 32, 32).square()
    assert_close(Augment(["xflip"], p=1.0)(x, Percentile(0.9))[..., 4:-4, 4:-4], x.flip(3)[..., 4:-4, 4:-4], 1e-2)


def test_controller_moves_by_the_official_steps(golden):
    ref = Golden(golden, "schedule")
    controller, p, ours = Controller(target=0.6, kimg=500), 0.0, []
    for mean in ref["ada/sign_means"].tolist():
        p = controller.adjusted(p, mean, 32 * 4)
        ours.append(p)
    np.testing.assert_allclose(ours, ref["ada/p"].numpy(), atol=1e-6)


def test_controller_by_hand_and_at_its_bounds():
    controller = Controller(target=0.6, kimg=1, upper=0.8)
    assert controller.adjusted(0.5, 0.9, 100) == pytest.approx(0.6)
    assert controller.adjusted(0.5, 0.1, 100) == pytest.approx(0.4)
    assert controller.adjusted(0.05, 0.1, 100) == 0.0
    assert controller.adjusted(0.75, 0.9, 100) == 0.8
    assert math.isclose(controller.adjusted(0.5, 0.6, 100), 0.5)
