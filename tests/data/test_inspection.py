import io
import json
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from medgan.cli import main
from medgan.commands.inspect import command, sparkline
from medgan.data import alike as module
from medgan.data.alike import alike, small_version
from medgan.data.dataset import image_name, open_dataset, write_dataset
from medgan.data.inspection import inspect
from medgan.data.prepare import PrepareConfig, prepare
from medgan.errors import ConfigError, DataError
from tests.phantoms import ct_nifti


def png(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(n, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size)).astype(np.uint8)


def smooth(n, size=64, seed=0):
    """Images with structure at the scale of organs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in coarse])


@pytest.mark.parametrize("block", [2, 3, 2048])
def test_pairs_are_those_of_numpy(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    images = smooth(9)
    images[4] = 77
    images[7] = np.clip(images[2].astype(int) + 3, 0, 255)
    images[8] = np.asarray(Image.open(io.BytesIO(png(images[0], "JPEG", quality=75))))
    small = np.stack([small_version(image[None]) for image in images])
    with np.errstate(invalid="ignore"):
        table = np.corrcoef(small.reshape(9, -1).astype(float))
    wanted = {(i, j) for i in range(9) for j in range(i + 1, 9) if table[i, j] >= module.ALIKE}
    assert wanted == {(2, 7), (0, 8)}
    pairs = [(int(i), int(j), float(r)) for found in alike(small) for i, j, r in zip(*found, strict=True)]
    assert {(i, j) for i, j, _ in pairs} == wanted
    assert all(r == pytest.approx(table[i, j], abs=1e-5) for i, j, r in pairs)


def test_a_small_version_is_the_mean_of_areas():
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 251
    image = image.astype(np.uint8)
    by_hand = image.reshape(32, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(small_version(image[None]), by_hand, atol=1.0)  # Pillow rounds along each axis


@pytest.fixture
def prepared(tmp_path):
    for i in range(11):
        ct_nifti(tmp_path / "in" / f"DOE_JANE_{i}", shift=i)
    prepare(PrepareConfig(size=32, workers=1), tmp_path / "in", tmp_path / "out.zip")
    return tmp_path / "out.zip"


def test_facts_of_a_prepared_set(prepared):
    held_out = open_dataset(prepared.with_suffix(".held-out.zip"))
    dataset = open_dataset(prepared)
    facts = inspect(dataset, held_out)
    assert (facts["images"], facts["held_out_images"], facts["size"], facts["channels"], facts["bits"]) == (80, 8, "32x32", 1, 8)
    assert facts["identity"] == dataset.identity
    assert facts["patients"]["training"] == 10
    assert facts["patients"]["held_out"] == 1
    assert facts["patients"]["on_both_sides"] == []
    assert facts["patients"]["images_each"] == {"least": 8, "median": 8, "most": 8}
    assert facts["dropped"] == {"slice without the label": 44}
    assert facts["spacing_mm"] == {"2x1x1": 80}
    assert facts["scan_size"] == {"32x28": 80}
    assert facts["copies"] == {"in_training": 0, "held_out_in_training": 0}
    images = dataset.images(slice(None))
    assert facts["intensity"]["histogram"] == [int((images == grey).sum()) for grey in range(256)]
    assert facts["intensity"]["black"] == round(float((images == 0).mean()), 4)
    assert facts["intensity"]["percentiles"]["50"] == int(np.percentile(images, 50, method="inverted_cdf"))
    assert [text for text in facts["advice"] if "10 patients: below 30" in text]
    assert "DOE" not in json.dumps(facts)
    # The phantoms differ in a few voxels only: neighbours of one patient, and patients, are nearly the same.
    assert facts["near_duplicates"]["other_patient"] == facts["images"] + 8
    assert any("two IDs" in text for text in facts["advice"])


def test_a_leak_across_the_split_is_said_first(tmp_path):
    train, other = smooth(12), smooth(6, seed=1)
    other[1] = train[3]
    other[2] = np.asarray(Image.open(io.BytesIO(png(train[5], "JPEG", quality=80))))
    train[7] = train[8]
    rows = ["image,subject_key", *(f"{image_name(i)},key{i // 4}" for i in range(12))]
    held = ["image,subject_key", *(f"{image_name(i)},key{2 if i == 5 else 9}" for i in range(6))]
    write_dataset(tmp_path / "a.zip", map(png, train), None, "\n".join(rows), {})
    write_dataset(tmp_path / "a.held-out.zip", map(png, other), None, "\n".join(held), {})
    facts = inspect(open_dataset(tmp_path / "a.zip"), open_dataset(tmp_path / "a.held-out.zip"))
    assert facts["copies"] == {"in_training": 1, "held_out_in_training": 1}
    assert facts["patients"]["on_both_sides"] == ["key2"]
    near = facts["near_duplicates"]
    assert (near["across_the_split"], near["other_patient"], near["same_patient"]) == (4, 6, 0)
    assert {tuple(pair["images"]) for pair in near["examples"]} >= {
        (image_name(3), f"held-out {image_name(1)}"),
        (image_name(5), f"held-out {image_name(2)}"),
    }
    assert [text.split(":")[0] for text in facts["advice"][:4]] == [
        "1 patients are in the training and in the held-out images",
        "1 held-out images are training images too",
        "4 images are nearly the same on both sides of the split",
        "1 of 12 images are exact copies of others",
    ]


def test_pictures_of_other_makers(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    images = (smooth(6, size=50) * 0.4).astype(np.uint8)
    images[4] = images[1]
    for i, image in enumerate(images):
        (folder / f"DOE_JANE_{i}.png").write_bytes(png(image))
    (folder / "dataset.json").write_text(json.dumps({"labels": [[f"DOE_JANE_{i}.png", i // 5] for i in range(6)]}))
    facts = inspect(open_dataset(folder, any_size=True))
    assert facts["made_by"] == "another tool"
    assert facts["patients"] is None
    assert facts["labels"] == {"kind": "classes", "images": {"0": 5, "1": 1}}
    assert facts["copies"]["in_training"] == 1
    said = "\n".join(facts["advice"])
    for words in ("50x50 px: no network takes it", "99.5 % of all pixels are below grey", "classes with fewer than 100 images: 0, 1"):
        assert words in said
    [pair] = facts["near_duplicates"]["examples"]
    assert pair["images"][0].startswith("picture 2 of 6 (pixels sha256 ")
    assert "DOE" not in json.dumps(facts)


def test_heavy_clipping_and_mixed_spacing(tmp_path):
    images = smooth(10)
    images[:, :40] = 255
    rows = ["image,subject_key,spacing_mm,rows,columns,orientation"]
    rows += [f"{image_name(i)},k{i},2x{0.5 + i / 10}x{0.5 + i / 10},30,20,LPS" for i in range(10)]
    write_dataset(tmp_path / "a.zip", map(png, images), None, "\n".join(rows), {})
    facts = inspect(open_dataset(tmp_path / "a.zip"))
    said = "\n".join(facts["advice"])
    assert facts["intensity"]["clipped_images"] == 10
    for words in (
        "10 images are white in more than 20%",
        "0.5 to 1.4 mm wide",
        "10 images are enlarged by more than 1.5",
        "no patient is held out",
    ):
        assert words in said


def test_processes_measure_what_one_measures(prepared, monkeypatch):
    from medgan.data import inspection

    one = inspect(open_dataset(prepared))
    monkeypatch.setattr(inspection, "FEWEST_PIXELS_FOR_WORKERS", 1)
    monkeypatch.setattr(inspection, "SPAN", 16)
    assert inspect(open_dataset(prepared)) == one


def test_the_command_prints_json_or_lines_and_draws_a_sheet(prepared, tmp_path):
    words = [str(prepared), "--json", "--sheet", str(tmp_path / "sheet.png")]
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    facts = json.loads(result.stdout)
    assert facts["held_out_images"] == 8
    # 64 of the 80 images, eight in a row.
    assert Image.open(tmp_path / "sheet.png").size == (256, 256)
    result = CliRunner().invoke(command, [str(prepared)], catch_exceptions=False)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert "patients    10 in training, 1 held out; 10 sessions, 10 series; images each 8 to 8, median 8" in lines
    assert "left out    slice without the label (44)" in lines
    assert any(line.startswith("ADVICE ") for line in lines)
    assert "DOE" not in result.stderr


def test_a_flat_histogram_is_a_flat_line_without_black():
    assert sparkline([10**9] + [5] * 255, columns=8)[1:] == "█" * 7
    assert sparkline([0] * 255 + [1], columns=8) == " " * 7 + "█"


def test_bad_input(tmp_path):
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "DOE.zip")])
    assert result.exit_code == 66
    assert "DOE" not in result.stderr
    with pytest.raises(ConfigError, match="--sheet is a PNG"):
        CliRunner().invoke(command, [str(tmp_path), "--sheet", "a.jpg"], catch_exceptions=False)
    images = [png(image) for image in noise(3)]
    write_dataset(tmp_path / "a.zip", [images[0], images[1][:200], images[2]], None, "image\n", {})
    with pytest.raises(DataError, match=r"1 of 3 images cannot be used: broken: 00000/img00000001\.png"):
        CliRunner().invoke(command, [str(tmp_path / "a.zip")], catch_exceptions=False)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="holds no image"):
        CliRunner().invoke(command, [str(tmp_path / "empty.zip")], catch_exceptions=False)
