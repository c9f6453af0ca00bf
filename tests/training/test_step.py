"""Seventeen iterations of the official loop, replayed: losses and every tensor at the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgan import machine
from medgan.training import losses
from medgan.training.augment import Augment
from medgan.training.config import PIPES, TrainConfig
from medgan.training.sampler import Sampler
from medgan.training.state import State, build, lazy_adam, update_average
from medgan.training.statistics import Collector
from medgan.training.step import Step
from tests.golden import GRADIENT, Golden, assert_close

NETWORKS = ["g32_gray", "g32_rgb", "g32_cond", "g16_resnetG_origD_clamp", "g16_skipD_origG"]
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")


@pytest.fixture(scope="module", params=NETWORKS)
def ref(request, golden) -> Golden:
    return Golden(golden, request.param)


def _check_gradients(ref: Golden, prefix: str, network: torch.nn.Module) -> None:
    """Every parameter gradient the reference holds, whole or as its norm; at least one must be there."""
    names = ref.names(f"{prefix}/grad/") + ref.names(f"{prefix}/gradnorm/")
    assert names
    parameters = dict(network.named_parameters())
    for name in names:
        grad = parameters[name.split("/", 2)[2]].grad
        assert grad is not None, name
        assert_close(grad if "/grad/" in name else grad.norm(), ref[name], GRADIENT)


def test_r1(ref):
    _, D = ref.networks()
    penalty, _ = losses.r1_penalty(D, lambda x: x, ref["in/real"][:4], ref["in/c8"][:4])
    assert_close(penalty, ref["r1/penalty"], 1e-4)
    loss = (penalty * (10 / 2)).mean() * 16
    assert_close(loss, ref["r1/loss"], 1e-4)
    loss.backward()
    _check_gradients(ref, "r1", D)


def test_path_length(ref):
    G, _ = ref.networks()
    G.train()
    noise = ref["pl/noise"] * ref["pl/noise"].shape[-1]
    ws = G.mapping(ref["in/z"][:2], ref["in/c"][:2])
    penalty, mean = losses.path_length_penalty(G, ws, ref["pl/mean_before"], decay=0.01, noise=noise, noise_mode="const")
    assert_close(mean, ref["pl/mean_after"], 1e-4)
    assert_close(penalty, ref["pl/penalty"], 1e-4)
    loss = (penalty * 2).mean() * 4
    assert_close(loss, ref["pl/loss"], 1e-4)
    loss.backward()
    _check_gradients(ref, "pl", G)


def test_adversarial_losses(ref):
    G, D = ref.networks()
    G.train()
    fake, c = ref["syn/img_const"], ref["in/c"]
    loss = (
        losses.discriminator_fake_loss(D(fake, c)).mean() + losses.discriminator_real_loss(D(ref["in/real"][:4], ref["in/c8"][:4])).mean()
    )
    assert_close(loss, ref["dmain/loss"], 1e-5)
    loss.backward()
    _check_gradients(ref, "dmain", D)
    loss = losses.generator_loss(D(G(ref["in/z"], c, noise_mode="const"), c)).mean()
    assert_close(loss, ref["gmain/loss"], 1e-5)
    loss.backward()
    _check_gradients(ref, "gmain", G)


@pytest.mark.parametrize(("name", "beta1"), [("train_trace_b0", 0.0), ("train_trace_b09", 0.9)])
def test_seventeen_iterations_reproduce_losses_and_tensors(golden, name, beta1):
    ref = Golden(golden, name)
    G, D = ref.networks("G0/", "D0/")
    config = TrainConfig(
        batch=4,
        beta1=beta1,
        style_mixing=0.0,
        augment="none",
        ema_kimg=1.25,
        ema_rampup=0.05,
        channel_base=128,
        channel_max=16,
        latent=16,
        map_layers=2,
    )
    state = State(
        G=G.train(),
        D=D.train(),
        G_ema=ref.networks("G0/", "D0/")[0].requires_grad_(False),
        G_opt=lazy_adam(G.parameters(), lr=0.002, beta1=beta1, beta2=0.99, interval=4),
        D_opt=lazy_adam(D.parameters(), lr=0.002, beta1=beta1, beta2=0.99, interval=16),
        pl_mean=torch.zeros([]),
        signs=torch.zeros(2, dtype=torch.float64),
    )
    collect = Collector()
    step = Step(state, config, Augment([]), gamma=1.0, collect=collect, labels=lambda n: None)
    for i, real in enumerate(ref["in/real"]):
        collect.clear()
        step(real, None, lambda phase, i=i: ref["in/z"][i, PHASES.index(phase)], pl_noise=ref["in/pl_noise_unit"][i])
        update_average(state, config, images=4)
        state.nimg += 4
        state.step += 1
        for key, quantity in (
            ("Gmain:Loss/G/loss", "Loss/G/loss"),
            ("Dmain:Loss/D/loss", "Loss/D/loss"),
            ("Greg:Loss/pl_penalty", "Loss/pl_penalty"),
            ("Dreg:Loss/r1_penalty", "Loss/r1_penalty"),
        ):
            expected = float(ref[f"log/{key}"][i])
            assert collect.mean(quantity) == pytest.approx(expected, rel=1e-3, nan_ok=True), (i, quantity)
    assert_close(state.pl_mean, ref["log/pl_mean_final"], 1e-3)
    for prefix, network in (("GT/", state.G), ("DT/", state.D), ("GemaT/", state.G_ema)):
        expected_state = ref.state(prefix)
        assert expected_state
        for key, value in network.state_dict().items():
            assert_close(value, expected_state[key], 1e-3)


def test_lazy_regularisation_corrects_adam(golden):
    ref = Golden(golden, "schedule")
    for key, beta1, interval in (("G", 0.0, 4), ("D", 0.0, 16), ("G09", 0.9, 4), ("D09", 0.9, 16)):
        group = lazy_adam([torch.nn.Parameter(torch.zeros(1))], lr=0.002, beta1=beta1, beta2=0.99, interval=interval).param_groups[0]
        np.testing.assert_allclose([group["lr"], *group["betas"]], ref[f"lazy/{key}"].numpy(), rtol=1e-12)


def test_half_life_of_the_average(golden):
    ref = Golden(golden, "schedule")
    for key, rampup in (("ema_beta/batch32_ramp", 0.05), ("ema_beta/batch32_noramp", 0.0)):
        for nimg, beta in zip((0, 32, 320, 3200, 32000, 199968, 200000, 1000000), ref[key].tolist(), strict=True):
            G, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.zeros_(G.weight), torch.nn.init.ones_(average.weight)
            state = State(G=G, D=G, G_ema=average, G_opt=None, D_opt=None, pl_mean=torch.zeros([]), signs=torch.zeros(2), nimg=nimg)  # type: ignore[arg-type]
            update_average(state, TrainConfig(batch=32, ema_rampup=rampup), images=32)
            assert average.weight.item() == pytest.approx(beta, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "size", "rank", "ranks", "seed"),
    [("n10_rank0of1_seed0", 10, 0, 1, 0), ("n50_rank0of1_seed3", 50, 0, 1, 3), ("n50_rank1of4_seed3", 50, 1, 4, 3)],
)
def test_the_sampler_keeps_the_official_order(golden, key, size, rank, ranks, seed):
    sampler = Sampler(size, rank=rank, ranks=ranks, seed=seed)
    assert [next(sampler) for _ in range(200)] == Golden(golden, "schedule")[f"sampler/{key}"].tolist()


def test_a_reloaded_sampler_goes_on_where_it_stopped():
    one, two = Sampler(30, seed=5), Sampler(30, seed=6)
    for _ in range(47):
        next(one)
    two.load(one.state())
    assert [next(one) for _ in range(100)] == [next(two) for _ in range(100)]


def test_two_rounds_of_accumulation_give_the_gradient_of_one():
    """With groups of one image no round sees another's statistics, so 2 + 2 must equal 4 to rounding."""
    gradients = []
    for batch_gpu in (4, 2):
        torch.manual_seed(0)
        config = TrainConfig(
            batch=4,
            batch_gpu=batch_gpu,
            mbstd_group=1,
            channel_base=256,
            channel_max=8,
            latent=8,
            map_layers=1,
            style_mixing=0.0,
            augment="none",
        )
        state = build(config, size=32, channels=1, c_dim=0, device=torch.device("cpu"))
        real, z = torch.randn(4, 1, 32, 32), torch.randn(4, 8)
        step = Step(state, config, Augment([]), gamma=1.0, collect=Collector(), labels=lambda n: None)
        state.G.requires_grad_(False)
        for start in range(0, 4, batch_gpu):
            step._discriminator_main(z[start : start + batch_gpu], real[start : start + batch_gpu], None)
        gradients.append(torch.cat([p.grad.flatten() for p in state.D.parameters() if p.grad is not None]))
    assert_close(gradients[1], gradients[0], 1e-4)


def test_nonfinite_gradients_are_counted_and_replaced():
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.tensor([float("nan"), float("inf"), float("-inf"), 1.0])
    module = torch.nn.ParameterList([p])
    module.synthesis = torch.nn.Identity()
    state = State(G=module, D=module, G_ema=module, G_opt=None, D_opt=None, pl_mean=torch.zeros([]), signs=torch.zeros(2))  # type: ignore[arg-type]
    step = Step(state, TrainConfig(), Augment([]), gamma=0, collect=Collector(), labels=lambda n: None)
    optimizer = torch.optim.SGD([p], lr=1.0)
    step._update(optimizer, module)
    assert int(state.nonfinite) == 3
    assert p.tolist() == [0.0, -1e5, 1e5, -1.0]


@pytest.mark.slow
def test_a_compiled_step_equals_an_eager_one():
    """Captured and differentiated by torch.compile, all phases, two steps; without its code generator, which takes minutes, nothing may be rounded otherwise."""
    config = TrainConfig(batch=4, channel_base=128, channel_max=8, latent=8, map_layers=2, augment="fixed", augment_p=0.5, g_reg_interval=2)
    real = torch.rand(4, 1, 32, 32) * 2 - 1
    states = []
    for backend in ("", "aot_eager"):
        state = build(config, size=32, channels=1, c_dim=0, device=torch.device("cpu"))
        step = Step(state, config, Augment(PIPES["bgc"], 0.5), gamma=1.0, collect=Collector(), labels=lambda n: None)
        if backend:
            cpu = torch.device("cpu")
            step.synthesis = machine.compiled(state.G.synthesis, "on", cpu, backend=backend)
            step.critic = machine.compiled(state.D, "on", cpu, backend=backend)
        for number in range(2):
            state.step, state.nimg = number, 4 * number
            z = torch.randn(4, 8, generator=torch.Generator().manual_seed(number))
            step(real, None, lambda phase, z=z: z)
        states.append(state.G.state_dict() | {f"D.{name}": tensor for name, tensor in state.D.state_dict().items()})
    torch._dynamo.reset()
    assert len(states[0]) > 60
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name


def kept(run) -> int:
    """Bytes that autograd keeps for the backward pass of what `run` computes."""
    found: dict[int, int] = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(found.values())


def test_features_made_again_are_the_same_and_keep_little():
    """All phases, two steps, to the last bit, noise and style mixing included; the main phases keep less than a fifth."""
    real = torch.rand(4, 1, 64, 64) * 2 - 1
    states, bytes_kept = [], []
    for recompute in (False, True):
        config = TrainConfig(
            batch=4, channel_base=512, channel_max=16, latent=8, map_layers=2, augment="none", g_reg_interval=2, recompute=recompute
        )
        state = build(config, size=64, channels=1, c_dim=0, device=torch.device("cpu"))
        torch.nn.init.constant_(state.G.synthesis.b64.conv1.noise_strength, 0.5)
        step = Step(state, config, Augment(()), gamma=1.0, collect=Collector(), labels=lambda n: None)
        for number in range(2):
            state.step, state.nimg = number, 4 * number
            z = torch.randn(4, 8, generator=torch.Generator().manual_seed(number))
            step(real, None, lambda phase, z=z: z)
        states.append(state.G.state_dict() | {f"D.{name}": tensor for name, tensor in state.D.state_dict().items()})
        state.G.requires_grad_(True)
        bytes_kept.append(kept(lambda step=step, z=z: step.critic(step._images(z, None)[0], None, **step.options)))
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name
    assert bytes_kept[1] < bytes_kept[0] / 5


def test_where_a_step_is_compiled():
    """Not by default, and on no CPU unless asked for."""
    D, cpu = torch.nn.Linear(2, 2), torch.device("cpu")
    assert TrainConfig().compile == "off"
    assert machine.compiled(D, "off", torch.device("cuda")) is D
    assert machine.compiled(D, "auto", cpu) is D
    assert machine.compiled(D, "on", cpu) is not D
