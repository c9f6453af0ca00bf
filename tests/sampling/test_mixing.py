"""Which styles steer which layers, and what a style mixing sheet shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medgan.errors import ConfigError
from medgan.sampling.generate import Drawing, sample
from medgan.sampling.mixing import GAP, mix, sheet, style_rows, write_sheets
from tests.sampling.test_generate import METADATA, network

ROWS, COLUMNS = [0, 1, 2], [10, 11]


@pytest.mark.parametrize(
    ("num_ws", "stops"),
    [(8, {"coarse": 3, "middle": 8}), (10, {"coarse": 3, "middle": 7, "fine": 10}), (18, {"coarse": 3, "middle": 7, "fine": 18})],
)
def test_style_rows_of_32_64_and_1024_px(num_ws, stops):
    assert {name: rows.stop for name, rows in style_rows(num_ws).items()} == stops
    assert [row for rows in style_rows(num_ws).values() for row in rows] == list(range(num_ws))


def features(G, ws):
    """The features that leave each block, by resolution."""
    found = {}
    hooks = [
        getattr(G.synthesis, f"b{r}").register_forward_hook(lambda m, i, out, r=r: found.update({r: out[0]}))
        for r in G.synthesis.resolutions
    ]
    G.synthesis(ws, noise_mode="none")
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(("group", "first"), [("coarse", 4), ("middle", 16), ("fine", 64)])
def test_a_group_changes_nothing_below_its_first_resolution(group, first):
    G = network("128 px")
    a, b = G.mapping(torch.randn(2, 64)).split(1)
    rows = style_rows(G.num_ws)[group]
    mixed = torch.cat([b[:, i : i + 1] if i in rows else a[:, i : i + 1] for i in range(G.num_ws)], dim=1)
    before, after = features(G, a), features(G, mixed)
    assert {r for r in before if torch.equal(before[r], after[r])} == {r for r in before if r < first}


def test_taking_nothing_or_everything():
    G, drawing = network("demo"), Drawing(noise="const")
    assert np.array_equal(mix(G, ROWS, COLUMNS, range(0), drawing)[:, 1], sample(G, ROWS, drawing))
    assert np.array_equal(mix(G, ROWS, COLUMNS, range(G.num_ws), drawing)[2], sample(G, COLUMNS, drawing))


def test_a_sheet_by_hand():
    one = np.ones((1, 2, 2), np.uint8)
    page = sheet(np.stack([one, 2 * one]), (3 * one)[None], np.stack([[4 * one], [5 * one]]))
    assert page.shape == (1, 6 + GAP, 4 + GAP)
    assert page[0, 2 + GAP :, 0].tolist() == [1, 1, 2, 2]
    assert page[0, 0, 2 + GAP :].tolist() == [3, 3]
    assert page[0, 2 + GAP :, -1].tolist() == [4, 4, 5, 5]
    assert page[0, :2, :2].min() == 255
    assert page[0, 2 : 2 + GAP].min() == 255


def test_what_is_written(tmp_path):
    summary = write_sheets(network("demo"), METADATA, ROWS, COLUMNS, tmp_path, drawing=Drawing())
    assert summary["sheets"] == ["style_mix_coarse.png", "style_mix_middle.png", "style_mix_fine.png"]
    for name in summary["sheets"]:
        picture = Image.open(tmp_path / name)
        assert picture.size == (3 * 64 + GAP, 4 * 64 + GAP)
        assert (picture.text["synthetic"], picture.text["rows"], picture.text["columns"]) == ("true", "0,1,2", "10,11")


def test_a_sheet_too_large_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="64 x 64 images is too large"):
        write_sheets(network("demo"), METADATA, range(64), range(64), tmp_path, drawing=Drawing())
    assert list(tmp_path.iterdir()) == []
