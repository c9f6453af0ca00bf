"""The watch over real trainings: a planted collapse, a p at its bound and a discriminator that knows its images by heart are seen, once."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch

from medgan import runs
from medgan.commands.training_run import held_out_beside, labels_for
from medgan.data.dataset import open_dataset
from medgan.errors import DataError, DivergedError
from medgan.training import state as states
from medgan.training.augment import Augment
from medgan.training.batches import Batches, one_hot
from medgan.training.config import TrainConfig
from medgan.training.loop import train
from medgan.training.watch import Watch
from tests.toy import discs, tiny

CPU = torch.device("cpu")


def _real(data, indices) -> torch.Tensor:
    return torch.from_numpy(data.images(np.asarray(indices))).float() / 127.5 - 1


def _watch(data, held_out=None, config: TrainConfig | None = None, samples: int = 64) -> tuple[Watch, states.State]:
    config = config or tiny(kimg=1000)
    batches = Batches(data, mirror=False, seed=0, device=CPU)
    state = states.build(config, size=data.resolution, channels=data.channels, c_dim=batches.c_dim, device=CPU)
    state.step = 100
    return Watch(config, batches, samples=samples, augment=Augment(()), held_out=held_out), state


def test_real_images_are_as_diverse_as_real_images(tmp_path):
    """The samples are the very images the watch compares with: every second of 24, which are linspace(0, 23, 12)."""
    data = discs(tmp_path / "data", n=24)
    watch, state = _watch(data)
    row = watch.look(state, _real(data, np.linspace(0, 23, 12).round().astype(int)))
    assert row == {"Diversity/distance": 1.0, "Diversity/nearest": 1.0}


def test_a_collapse_rings_once_and_again_only_after_it_had_gone(tmp_path):
    """Diverse, one image, one image, diverse, and two images in turn."""
    data = discs(tmp_path / "data", n=24)
    watch, state = _watch(data)
    diverse, one, two = _real(data, range(12)), _real(data, [0] * 12), _real(data, [0, 11] * 6)
    rows = [watch.look(state, images) for images in (diverse, one, one, diverse, two)]
    assert [[alarm["code"] for alarm in row.get("alarms", [])] for row in rows] == [[], ["W_DIVERSITY"], [], [], ["W_DIVERSITY"]]
    assert rows[1]["Diversity/distance"] == 0
    assert rows[4]["Diversity/distance"] > 0.5 > rows[4]["Diversity/nearest"] == 0
    assert state.watch["on"] == ["W_DIVERSITY"]


def test_the_variety_of_random_weights_is_none_to_lose(tmp_path):
    data = discs(tmp_path / "data", n=24)
    watch, state = _watch(data)
    state.step = 1
    watch.look(state, _real(data, range(12)))
    state.step = 2
    assert "alarms" not in watch.look(state, _real(data, [0] * 12))


def test_an_alarm_stays_on_at_ticks_without_a_snapshot(tmp_path):
    data = discs(tmp_path / "data", n=24)
    watch, state = _watch(data)
    for images in (_real(data, range(12)), _real(data, [0] * 12), None):
        row = watch.look(state, images)
    assert row == {}
    assert state.watch["on"] == ["W_DIVERSITY"]


class _OneImage(torch.nn.Module):
    """A generator's synthesis that forgets its input: the planted collapse."""

    def __init__(self, synthesis: torch.nn.Module) -> None:
        super().__init__()
        self.inner = synthesis
        self.num_ws = synthesis.num_ws

    def forward(self, ws, **kwargs):
        return self.inner(ws * 0 + 1, **kwargs)


def test_a_collapsed_generator_is_seen_in_a_training(tmp_path, monkeypatch, caplog):
    """From the first step to the last: in the statistics, the log, the progress line and status.json; and not repeated when resumed."""
    build = states.build

    def collapsed(*args, **kwargs):
        state = build(*args, **kwargs)
        for G in (state.G, state.G_ema):
            G.synthesis = _OneImage(G.synthesis)
        return state

    monkeypatch.setattr(states, "build", collapsed)
    data, lines = discs(tmp_path / "data"), []
    for kimg in (0.04, 0.08):
        # Path lengths of a generator that ignores w have no gradient.
        train(tiny(kimg=kimg, pl_weight=0.0), data, tmp_path / "run", on_tick=lines.append)
    rows = runs.read_json_lines(tmp_path / "run" / runs.STATS)
    rung = [(row["kimg"], alarm["code"]) for row in rows for alarm in row.get("alarms", [])]
    # Snapshots come at 4, 20 and 36 images; half of 40 have been shown at 20.
    assert rung == [(0.02, "W_DIVERSITY")]
    assert {row["Diversity/distance"] for row in rows if "Diversity/distance" in row} == {0}
    assert [record.getMessage()[:11] for record in caplog.records if "W_" in record.getMessage()] == ["W_DIVERSITY"]
    assert "alarms" not in lines[0]
    assert lines[-1]["alarms"] == json.loads((tmp_path / "run" / runs.STATUS).read_text())["alarms"] == "W_DIVERSITY"


def test_p_at_its_bound_rings_after_five_ticks(tmp_path):
    """A target no discriminator misses drives p to 0.8 within the first 80 images of 0.1 kimg per unit."""
    train(tiny(kimg=0.2, ada_target=-0.99), discs(tmp_path / "data"), tmp_path / "run")
    rows = runs.read_json_lines(tmp_path / "run" / runs.STATS)
    first = next(i for i, row in enumerate(rows) if row["Progress/augment"]["mean"] >= 0.8)
    assert [i for i, row in enumerate(rows) if "W_AUGMENT_BOUND" in json.dumps(row.get("alarms", []))] == [first + 4]


def test_without_a_bound_p_of_one_is_the_bound(tmp_path):
    watch, state = _watch(discs(tmp_path / "data"), config=tiny(ada_max=0))
    state.p = 1.0
    found = [watch.look(state, None) for _ in range(6)]
    assert [("alarms" in row) for row in found] == [False] * 4 + [True, False]
    state.p = 0.99
    watch.look(state, None)
    assert state.watch == {"on": [], "ticks_at_bound": 0}


class _Knows(torch.nn.Module):
    """A discriminator that takes exactly the images it was shown for real."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, x, c=None):
        known = [(x[i] == self.images).flatten(1).all(dim=1).any() for i in range(len(x))]
        return torch.stack(known).float()[:, None] - 0.5


def test_a_discriminator_that_knows_its_images_is_seen_on_held_out_ones(tmp_path):
    """It knows the 12 training images; of 18 held-out ones, the first six are among them.

    Groups of four: 16 are judged, at linspace(0, 17, 16) = 0, 1, 2, 3, 5, 6, 7 ..., so 5 of 16 are known.
    """
    data = discs(tmp_path / "data", n=12)
    discs(tmp_path / "other", n=24)
    for i in range(6):
        (tmp_path / "other" / f"img{i:08d}.png").unlink()
    watch, state = _watch(data, open_dataset(tmp_path / "other"))
    state.D = _Knows(_real(data, range(12)))
    row = watch.look(state, _real(data, range(6)))
    assert (row["Overfit/train"], row["Overfit/held_out"]) == (1.0, 0.3125)
    assert [alarm["code"] for alarm in row["alarms"]] == ["W_OVERFIT"]


def test_without_held_out_images_nothing_is_said_of_them(tmp_path):
    data = discs(tmp_path / "data")
    watch, state = _watch(data)
    assert not [name for name in watch.look(state, _real(data, range(6))) if name.startswith("Overfit")]


def test_judging_changes_no_random_number(tmp_path):
    """A run with held-out images ends bit for bit as one without."""
    data = discs(tmp_path / "data")
    held_out = discs(tmp_path / "other", n=7)
    train(tiny(ada_target=-0.99), data, tmp_path / "with", held_out=held_out)
    train(tiny(ada_target=-0.99), data, tmp_path / "without")
    with_it, without = (torch.load(tmp_path / run / runs.STATE, weights_only=True)["G"] for run in ("with", "without"))
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    rows = runs.read_json_lines(tmp_path / "with" / runs.STATS)
    assert [0 <= row["Overfit/held_out"] <= 1 for row in rows if "Overfit/held_out" in row] == [True] * 3


def test_held_out_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(DataError, match="the held-out images are 64 px with 1 channel"):
        train(tiny(), discs(tmp_path / "data"), tmp_path / "run", held_out=discs(tmp_path / "other", size=64))


def test_a_class_of_held_out_images_only_is_no_class(tmp_path):
    discs(tmp_path / "data", n=3)
    pairs = [[f"img{i:08d}.png", i] for i in range(3)]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": pairs}))
    data = open_dataset(tmp_path / "data")
    assert one_hot(data, 2).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert one_hot(data, 4).shape == (3, 4)
    assert torch.equal(one_hot(data), torch.eye(3))


def test_the_held_out_zip_beside_a_dataset_is_found(tmp_path):
    discs(tmp_path / "pictures", n=4)
    for name in ("data.zip", "data.held-out.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in sorted((tmp_path / "pictures").iterdir()):
                archive.write(path, path.name)
    assert held_out_beside(open_dataset(tmp_path / "data.zip")).path.name == "data.held-out.zip"
    assert held_out_beside(open_dataset(tmp_path / "data.held-out.zip")) is None
    assert held_out_beside(open_dataset(tmp_path / "pictures")) is None
    (tmp_path / "data.held-out.zip").write_bytes(b"torn")
    with pytest.raises(DataError, match="in the held-out set beside the dataset: the dataset is not a readable zip"):
        held_out_beside(open_dataset(tmp_path / "data.zip"))


def test_labels_for_a_comparison_are_those_the_generator_knows(tmp_path):
    class Takes:
        def __init__(self, c_dim):
            self.c_dim = c_dim

    discs(tmp_path / "data", n=3)
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": [[f"img{i:08d}.png", [0.5, i]] for i in range(3)]}))
    data = open_dataset(tmp_path / "data")
    assert labels_for(Takes(2), data).tolist() == [[0.5, 0], [0.5, 1], [0.5, 2]]
    assert labels_for(Takes(0), data) is None
    assert labels_for(Takes(3), data) is None
    assert labels_for(Takes(3), discs(tmp_path / "none", n=3)) is None


def test_the_number_of_values_that_may_be_not_finite_is_a_setting(tmp_path):
    data = discs(tmp_path / "data")
    with pytest.raises(DivergedError, match=r"^\d+ values of losses and gradients") as error:
        train(tiny(lr_g=1e30, lr_d=1e30, augment="none", max_nonfinite=0), data, tmp_path / "strict")
    assert error.value.exit_code == 76
    train(tiny(lr_g=1e30, lr_d=1e30, augment="none", max_nonfinite=10**9), data, tmp_path / "lenient")
    rows = runs.read_json_lines(tmp_path / "lenient" / runs.STATS)
    assert rows[-1]["nonfinite"] > 100
    assert rows[-1]["kimg"] == 0.032


def test_a_loss_that_is_not_finite_counts_by_itself(tmp_path):
    """Two of eight losses, without any gradient."""
    from medgan.training.statistics import Collector
    from medgan.training.step import Step

    _, state = _watch(discs(tmp_path / "data"))
    collect = Collector()
    step = Step(state, tiny(), Augment(()), gamma=1.0, collect=collect, labels=lambda n: None)
    step._report_loss("Loss/G/loss", torch.tensor([1.0, float("nan"), 2.0, float("inf")]))
    step._report_loss("Loss/D/loss", torch.ones(4))
    assert collect.total("Loss/nonfinite") == 2
    assert collect.total("never") == 0
    assert collect.summary()["Loss/nonfinite"]["mean"] == 0.25
