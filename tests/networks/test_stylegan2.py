"""The networks against the reference numbers of the official code, and properties that need no reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medgan.networks import NETWORKS
from medgan.networks.stylegan2 import Conv2dLayer, Discriminator, FullyConnectedLayer, Generator
from tests.golden import FORWARD, Golden, assert_close

CASES = ["g32_gray", "g32_rgb", "g32_cond", "g16_resnetG_origD_clamp", "g16_skipD_origG"]


@pytest.fixture(scope="module", params=CASES)
def ref(request, golden: Path) -> Golden:
    return Golden(golden, request.param)


def test_names_and_order_are_the_official_ones(ref):
    entries = ref.manifest["arrays"]
    for prefix, network in zip(("G/", "D/"), ref.networks(), strict=True):
        for kind, ours in (("parameter", network.named_parameters()), ("buffer", network.named_buffers())):
            theirs = [n[len(prefix) :] for n in entries if n.startswith(prefix) and entries[n]["kind"] == kind]
            assert [n for n, _ in ours] == theirs


def test_mapping_and_truncation(ref):
    G, _ = ref.networks()
    z, c = ref["in/z"], ref["in/c"]
    assert_close(G.mapping(z, c), ref["map/ws"], FORWARD)
    assert_close(G.mapping(z, c, truncation_psi=0.7), ref["map/ws_psi07"], FORWARD)
    assert_close(G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=4), ref["map/ws_psi07_cut4"], FORWARD)


@pytest.mark.parametrize("beta", [0.998, 0.995])
def test_running_mean_of_w(ref, beta):
    G, _ = ref.networks()
    G.mapping.w_avg_beta = beta
    G.mapping.move_average(G.mapping(ref["in/z"], ref["in/c"])[:, 0].mean(dim=0))
    assert_close(G.mapping.w_avg, ref[f"map/w_avg_after_update_beta{beta}"], FORWARD)


def test_images(ref):
    G, _ = ref.networks()
    z, c, ws = ref["in/z"], ref["in/c"], ref["map/ws"]
    assert_close(G.synthesis(ws, noise_mode="const"), ref["syn/img_const"], FORWARD)
    assert_close(G.synthesis(ws, noise_mode="none"), ref["syn/img_none"], FORWARD)
    assert_close(G(z, c, truncation_psi=0.7, noise_mode="const"), ref["syn/img_psi07_const"], FORWARD)
    assert_close(G.synthesis(ref["map/ws_mixed_cut3"], noise_mode="const"), ref["syn/img_mixed_const"], FORWARD)


def test_each_block_of_the_generator(golden):
    ref = Golden(golden, "g32_rgb")
    G, _ = ref.networks()
    x = img = None
    row = 0
    ws = ref["map/ws"][:1]
    for r in G.synthesis.resolutions:
        block = getattr(G.synthesis, f"b{r}")
        x, img = block(x, img, ws[:, row : row + block.num_conv + 1], noise_mode="const")
        row += block.num_conv
        assert_close(x, ref[f"syn/block_b{r}_x"], FORWARD)
        assert_close(img, ref[f"syn/block_b{r}_img"], FORWARD)


def test_logits(ref):
    _, D = ref.networks()
    real, c8 = ref["in/real"], ref["in/c8"]
    assert_close(D(ref["syn/img_const"], ref["in/c"]), ref["dis/logits_fake"], FORWARD)
    assert_close(D(real, c8), ref["dis/logits_real"], FORWARD)
    assert_close(D(real[:2], c8[:2]), ref["dis/logits_real_b2"], FORWARD)
    assert_close(D(real[:1], c8[:1]), ref["dis/logits_real_b1"], FORWARD)


@pytest.mark.parametrize(
    ("name", "kwargs"), [("linear", {"bias_init": 1}), ("lrelu_lr001", {"activation": "lrelu", "lr_multiplier": 0.01})]
)
def test_fully_connected(golden, name, kwargs):
    ref = Golden(golden, "ops")
    layer = FullyConnectedLayer(7, 5, **kwargs)
    layer.load_state_dict({"weight": ref[f"fc/{name}/weight"], "bias": ref[f"fc/{name}/bias"]})
    assert_close(layer(ref[f"fc/{name}/x"]), ref[f"fc/{name}/out"], 1e-5)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("down2_lrelu_clamp", Conv2dLayer(4, 3, 3, activation="lrelu", down=2, conv_clamp=0.4)),
        ("up2_linear", Conv2dLayer(4, 3, 1, bias=False, up=2)),
    ],
)
def test_convolution_layer_scales_its_clamp_with_the_call_gain(golden, name, layer):
    ref = Golden(golden, "ops")
    layer.weight.data.copy_(ref[f"convlayer/{name}/weight"])
    assert_close(layer(ref[f"convlayer/{name}/x"], gain=0.5**0.5), ref[f"convlayer/{name}/out_gain05"], 1e-5)


@pytest.mark.parametrize(
    ("size", "base", "g", "d"),
    [
        (32, 32768, 21_523_475, 21_507_073),
        (256, 16384, 24_767_458, 24_001_089),
        (256, 32768, 30_034_338, 28_864_129),
        (512, 32768, 30_276_583, 28_982_849),
        (1024, 32768, 30_370_060, 29_012_513),
    ],
)
def test_parameter_totals_of_the_official_sizes(size, base, g, d):
    with torch.device("meta"):
        G = Generator(img_resolution=size, img_channels=3, channel_base=base)
        D = Discriminator(img_resolution=size, img_channels=3, channel_base=base)
    assert sum(p.numel() for p in G.parameters()) == g
    assert sum(p.numel() for p in D.parameters()) == d


def test_frozen_layers_are_buffers_under_the_same_names():
    whole, frozen = (
        Discriminator(img_resolution=32, channel_base=256, channel_max=8),
        Discriminator(img_resolution=32, channel_base=256, channel_max=8, freeze_layers=5),
    )
    assert whole.state_dict().keys() == frozen.state_dict().keys()
    gone = {n for n, _ in whole.named_parameters()} - {n for n, _ in frozen.named_parameters()}
    # Four layers of the first block (fromrgb, conv0, conv1, skip) and conv0 of the second.
    assert gone == {
        "b32.fromrgb.weight",
        "b32.fromrgb.bias",
        "b32.conv0.weight",
        "b32.conv0.bias",
        "b32.conv1.weight",
        "b32.conv1.bias",
        "b32.skip.weight",
        "b16.conv0.weight",
        "b16.conv0.bias",
    }


@pytest.mark.parametrize("name", NETWORKS.names())
class TestFamilyContract:
    def networks(self, name):
        torch.manual_seed(0)
        family = NETWORKS.get(name)
        size = family.sizes[0]
        return (
            family.generator(img_resolution=size, img_channels=1, **family.tiny),
            family.discriminator(img_resolution=size, img_channels=1, **family.tiny),
            size,
        )

    def test_shapes(self, name):
        G, D, size = self.networks(name)
        images = G(torch.randn(4, G.z_dim))
        assert images.shape == (4, 1, size, size)
        assert D(images).shape == (4, 1)

    def test_the_gradient_reaches_z(self, name):
        G, D, _ = self.networks(name)
        z = torch.randn(4, G.z_dim, requires_grad=True)
        D(G(z)).sum().backward()
        assert z.grad is not None
        assert (z.grad.abs().sum(dim=1) > 0).all()

    def test_same_seed_same_image(self, name):
        G, _, _ = self.networks(name)
        z = torch.randn(2, G.z_dim)
        images = []
        for _ in range(2):
            torch.manual_seed(5)
            images.append(G(z))
        assert torch.equal(*images)
