"""The contract of a recipe: on its data set in the published layout it needs no other option, and says what it dropped and why."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from medgan.data import RECIPES
from medgan.data.dataset import open_dataset
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.recipe import SIZES, Recipe
from medgan.errors import ConfigError, DataError
from tests.data import layouts


def run(tmp_path, recipe, source=None, **settings):
    """Prepare in one process; the summary, the training set and its manifest."""
    out = tmp_path / "out.zip"
    summary = prepare(PrepareConfig(recipe=recipe, workers=1, **settings), source or tmp_path / "in", out)
    with (tmp_path / "out.info" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    return summary, open_dataset(out), rows


@pytest.mark.parametrize("name", RECIPES.names())
def test_a_recipe_needs_no_other_option(tmp_path, name):
    build, images = layouts.LAYOUTS[name]
    build(tmp_path / "in")
    summary, dataset, rows = run(tmp_path, name)
    recipe = RECIPES.get(name)
    assert (summary["kept"], len(rows)) == (images, images)
    assert len(dataset) == images - summary["held_out"]
    assert dataset.resolution == (recipe.size or 28)
    assert dataset.labels is None, "an unconditional network, as in the papers, unless --labels is given"
    assert dataset.identity == summary["identity"]
    pictures = dataset.images(slice(None))
    assert pictures.dtype == np.uint8
    assert pictures.max() > 100
    written = json.loads((tmp_path / "out.info" / "recipe.json").read_text())
    assert Recipe.from_dict(written).name == name


@pytest.mark.parametrize("name", RECIPES.names())
def test_a_recipe_says_where_it_comes_from(name):
    recipe = RECIPES.get(name)
    assert recipe.name == name
    assert recipe.source
    assert recipe.size in (0, *SIZES)
    assert recipe.title[-1] != "."
    assert RECIPES.get(name).paper_images in (0, 10_600, 4_159, 112_120, 1_902, 103_030)
    with pytest.raises(ConfigError, match="--class nonsense"):
        PrepareConfig(recipe=name, only_class="nonsense")


def test_acdc_takes_end_diastole_and_end_systole_once(tmp_path):
    """The frames of the 4-D file and the files of single frames hold the same slices; label maps are no images."""
    layouts.acdc(tmp_path / "both")
    layouts.acdc(tmp_path / "only_4d", single_frames=False)
    both, dataset, rows = run(tmp_path, "acdc", tmp_path / "both")
    assert (both["kept"], both["patients"], both["scans"]) == (20, 2, 4)
    assert sorted({row["label"] for row in rows}) == ["ED", "ES"]
    assert {row["subject_key"] for row in rows if row["label"] == "ES"} == {row["subject_key"] for row in rows}
    only = prepare(PrepareConfig(recipe="acdc", workers=1), tmp_path / "only_4d", tmp_path / "only.zip")
    assert only["identity"] == both["identity"]
    # Padded to 512 and not scaled: 20 columns of 24 rows in the middle, one range over the five slices.
    picture = dataset.images([2])[0, 0]
    assert (np.flatnonzero(picture.any(0)).min(), np.flatnonzero(picture.any(1)).max()) >= (246, 0)
    assert not picture[:244].any()
    assert not picture[268:].any()
    frames = [layouts.heart(patient=patient)[..., frame] for patient in (1, 2) for frame in (0, 3)]
    expected = {np.round((f[:, :, 2].T - f.min()) / (f.max() - f.min()) * 255).astype(np.uint8).tobytes() for f in frames}
    found = {dataset.images([i])[0, 0, 244:268, 246:266].tobytes() for i in range(len(dataset)) if rows[i]["slice_index"] == "2"}
    assert found == expected
    es = prepare(PrepareConfig(recipe="acdc", only_class="es", workers=1), tmp_path / "both", tmp_path / "es.zip")
    assert (es["kept"], es["dropped"]) == (10, {"of another class": 10, "no file of this recipe's data set": 4})


def test_msd_brain_takes_channel_two_of_training_and_test_images(tmp_path):
    layouts.msd_brain(tmp_path / "in")
    summary, dataset, _ = run(tmp_path, "msd-brain")
    # Three patients of six slices, of which the first and last are black; label maps are 3-D, resource forks hidden.
    assert (summary["kept"], summary["patients"]) == (12, 3)
    assert summary["dropped"] == {
        "empty: less than 1 % of the image is above black": 6,
        "no 4-D file, which this recipe's data set has": 2,
    }
    expected = set()
    for patient in (1, 2, 3):
        volume = layouts.brain(patient)[..., 2]
        # Stored LAS: columns run to the left as in a picture, rows against it.
        expected |= {np.round(volume[:, ::-1, z].T / volume.max() * 255).astype(np.uint8).tobytes() for z in range(1, 5)}
    assert {image[116:140, 116:140].tobytes() for image in dataset.images(slice(None))[:, 0]} == expected
    assert dataset.resolution == 256


def test_sliver07_takes_every_slice_of_the_scans_and_no_mask(tmp_path):
    layouts.sliver07(tmp_path / "in")
    summary, dataset, rows = run(tmp_path, "sliver07", size=32)
    assert (summary["kept"], summary["patients"], summary["scans"]) == (24, 2, 2)
    assert summary["dropped"] == {"no file of this recipe's data set": 2}
    # The whole range of the volume, -1000 to 700 HU: fat of -100 HU is 900 / 1700 * 255 = 135 in every slice.
    assert {(row["level"], row["width"]) for row in rows} == {("-150", "1700")}
    assert all(135 in np.unique(image) for image in dataset.images(slice(None)))
    assert all(25 < np.mean(image) < 135 for image in dataset.images(slice(None)))
    # Masks may still select its slices.
    assert run(tmp_path, "sliver07", size=32, mask_label=1, overwrite=True)[0]["kept"] == 16


def test_chest_xray14_is_grey_split_by_patient_and_has_labels_on_request(tmp_path):
    layouts.chest_xray14(tmp_path / "in")
    summary, dataset, rows = run(tmp_path, "chest-xray14", fit="pad")
    assert (summary["kept"], summary["patients"], summary["dropped"]) == (4, 3, {})
    assert dataset.channels == 1
    centre = slice(512 - 20, 512 + 20)
    originals = {layouts.xray(index).tobytes() for index in range(4)}
    assert {image[centre, centre].tobytes() for image in dataset.images(slice(None))[:, 0]} == originals
    summary, dataset, rows = run(tmp_path, "chest-xray14", size=32, labels=True, overwrite=True)
    names = RECIPES.get("chest-xray14").classes
    vectors = {tuple(name for name, on in zip(names, vector, strict=True) if on) for vector in dataset.labels}
    assert vectors == {("Cardiomegaly",), ("Cardiomegaly", "Emphysema"), ("No Finding",), ("Hernia",)}
    assert {row["label"] for row in rows} == {"Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", "Hernia"}
    assert dataset.identity == summary["identity"]
    summary, _, _ = run(tmp_path, "chest-xray14", size=32, only_class="cardiomegaly", overwrite=True)
    assert (summary["kept"], summary["patients"], summary["dropped"]) == (2, 1, {"of another class": 2})


def test_words_of_a_list_that_are_no_classes_are_not_written(tmp_path):
    layouts.chest_xray14(tmp_path / "in")
    table = tmp_path / "in" / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Hernia", "Jane Doe"))
    _, _, rows = run(tmp_path, "chest-xray14", size=32)
    assert {row["label"] for row in rows} == {"Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", ""}


def test_chest_xray14_without_its_list_still_knows_the_patients(tmp_path):
    layouts.chest_xray14(tmp_path / "in")
    (tmp_path / "in" / "Data_Entry_2017_v2020.csv").unlink()
    summary, _, rows = run(tmp_path, "chest-xray14", size=32)
    assert (summary["kept"], summary["patients"], {row["label"] for row in rows}) == (4, 3, {""})
    with pytest.raises(DataError, match="--labels: 4 of 4 images have no class"):
        run(tmp_path, "chest-xray14", size=32, labels=True, overwrite=True)
    (tmp_path / "in" / "Data_Entry_2017.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="list of labels") as caught:
        run(tmp_path, "chest-xray14", size=32, overwrite=True)
    assert "Image Index, Finding Labels, Patient ID" in caught.value.fix


@pytest.mark.parametrize("word", ["pneumonia", "PNEUMONIA", "1"])
def test_one_class_of_pneumonia_mnist_with_its_own_test_part_held_out(tmp_path, word):
    path = layouts.medmnist(tmp_path / "in" / "pneumoniamnist.npz")
    summary, dataset, rows = run(tmp_path, "pneumonia-mnist", only_class=word)
    assert (summary["kept"], summary["held_out"], summary["patients"]) == (9, 3, 0)
    assert summary["dropped"] == {"of another class": 9}
    with np.load(path) as arrays:
        np.testing.assert_array_equal(dataset.images(slice(None))[:, 0], arrays["train_images"][1::2])
        np.testing.assert_array_equal(open_dataset(tmp_path / "out.held-out.zip").images(slice(None))[:, 0], arrays["test_images"][1::2])
    assert {(row["label"], row["split"]) for row in rows} == {("pneumonia", "train"), ("pneumonia", "held-out")}
    assert any("name no patients" in warning for warning in summary["warnings"])


@pytest.mark.parametrize(
    ("settings", "train", "held_out"),
    [({}, 12, 6), ({"held_out": 0.0}, 12, 0), ({"split": "val"}, 4, 6), ({"split": "test"}, 6, 0), ({"split": "all"}, 22, 0)],
)
def test_parts_of_a_data_set(tmp_path, settings, train, held_out):
    layouts.medmnist(tmp_path / "in" / "pneumoniamnist.npz")
    summary, dataset, _ = run(tmp_path, "pneumonia-mnist", **settings)
    assert (len(dataset), summary["held_out"]) == (train, held_out)


@pytest.mark.parametrize(("size", "expected"), [(28, 28), (64, 64), (128, 128), (224, 256)])
def test_medmnist_of_any_size_keeps_its_pixels(tmp_path, size, expected):
    path = layouts.medmnist(tmp_path / "in" / f"octmnist_{size}.npz", classes=4, size=size, counts=(3, 1, 1))
    _, dataset, _ = run(tmp_path, "oct-mnist")
    assert dataset.resolution == expected
    edge = (expected - size) // 2
    inside = dataset.images(slice(None))[:, 0, edge : edge + size, edge : edge + size]
    with np.load(path) as arrays:
        np.testing.assert_array_equal(inside, arrays["train_images"])


def test_two_sizes_of_one_set_are_not_mixed(tmp_path):
    for size in (28, 64):
        layouts.medmnist(tmp_path / "in" / f"pneumoniamnist_{size}.npz", size=size)
    with pytest.raises(DataError, match=r"2 sizes \(28 x 28, 64 x 64\)"):
        run(tmp_path, "pneumonia-mnist")
    # The one file that is named is meant, whatever it is called.
    (tmp_path / "in" / "pneumoniamnist_64.npz").rename(tmp_path / "mine.npz")
    assert run(tmp_path, "pneumonia-mnist", tmp_path / "mine.npz")[0]["size"] == 64


def test_colour_of_medmnist_stays_colour_and_grey_is_asked_for_elsewhere(tmp_path):
    path = layouts.medmnist(tmp_path / "in" / "bloodmnist.npz", channels=3, counts=(4, 1, 1))
    summary, dataset, _ = run(tmp_path, "medmnist", labels=True)
    assert (summary["channels"], dataset.channels, dataset.labels.tolist()) == (3, 3, [0, 1, 0, 1])
    with np.load(path) as arrays:
        np.testing.assert_array_equal(dataset.images(slice(None)).transpose(0, 2, 3, 1), arrays["train_images"])
    assert dataset.identity == summary["identity"]
    with pytest.raises(DataError, match="colour where grey is expected"):
        run(tmp_path, "oct-mnist", path, overwrite=True)


def test_several_findings_in_a_stack_become_vectors(tmp_path):
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.uint8)
    pictures = np.stack([layouts.xray(i, (28, 28)) for i in range(3)])
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "chestmnist.npz", train_images=pictures, train_labels=labels)
    _, dataset, rows = run(tmp_path, "medmnist", labels=True)
    assert dataset.labels.tolist() == labels.tolist()
    assert [row["label"] for row in rows] == ["0|2", "", "1"]


@pytest.mark.parametrize("packed", [True, False])
def test_trousers_of_fashion_mnist(tmp_path, packed):
    layouts.fashion_mnist(tmp_path / "in", packed=packed)
    summary, dataset, _ = run(tmp_path, "fashion-mnist", only_class="trouser")
    assert (summary["kept"], summary["held_out"], summary["dropped"]) == (3, 1, {"of another class": 27})
    expected = [layouts.xray(2 * i, (28, 28)) for i in (1, 11)]
    np.testing.assert_array_equal(dataset.images(slice(None))[:, 0], expected)


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])


def claim(path):
    path.write_bytes(b"\0\0\x08\x03" + np.array([2, 60000, 60000], ">i4").tobytes() + b"\0" * 100)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: cut(path, 1000), "the stack of pictures is cut off"),
        (claim, "claims no pictures that can be read"),
        (lambda path: path.write_bytes(b"\0\0\x0d\x03" + b"\0" * 12), "no unsigned bytes"),
        (lambda path: path.write_bytes(b""), "cut off"),
    ],
)
def test_a_broken_stack_is_a_reason(tmp_path, spoil, reason):
    layouts.fashion_mnist(tmp_path / "in", packed=False)
    spoil(tmp_path / "in" / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match=reason):
        run(tmp_path, "fashion-mnist", held_out=0.0)


def test_a_stack_is_listed_where_the_recipe_takes_none(tmp_path):
    layouts.xrays(tmp_path / "in")
    layouts.medmnist(tmp_path / "in" / "pneumoniamnist.npz")
    layouts.fashion_mnist(tmp_path / "in" / "fashion", packed=False)
    summary, _, _ = run(tmp_path, "xray")
    assert summary["kept"] == 2
    reason = "a stack of pictures (.npz or idx), which this recipe does not take"
    with (tmp_path / "out.info" / "excluded.csv").open() as file:
        assert [row["reason"] for row in csv.DictReader(file)] == [reason] * 5
    with pytest.raises(DataError, match=r"1 x a stack of pictures") as caught:
        run(tmp_path, "xray", tmp_path / "in" / "pneumoniamnist.npz", overwrite=True)
    assert "--recipe medmnist takes .npz files" in caught.value.fix


def test_a_stack_of_another_set_is_listed_and_an_unwanted_part_is_not(tmp_path):
    layouts.medmnist(tmp_path / "in" / "pneumoniamnist.npz")
    layouts.medmnist(tmp_path / "in" / "octmnist.npz", classes=4, size=64)
    summary, _, _ = run(tmp_path, "pneumonia-mnist", held_out=0.0)
    assert (summary["kept"], summary["dropped"]) == (12, {"no file of this recipe's data set": 1})
    layouts.fashion_mnist(tmp_path / "fashion", packed=False)
    assert run(tmp_path, "fashion-mnist", tmp_path / "fashion", held_out=0.0, overwrite=True)[0]["dropped"] == {}


def test_a_negative_label_names_no_class(tmp_path):
    """As an index it would name the last class."""
    path = layouts.medmnist(tmp_path / "pneumoniamnist.npz")
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "train_labels": arrays["train_labels"].astype(np.int64) - 1})
    with pytest.raises(DataError, match="a negative label"):
        run(tmp_path, "pneumonia-mnist", path, held_out=0.0)


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "pneumoniamnist.npz", train_images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="holds objects"):
        run(tmp_path, "pneumonia-mnist")


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path):
    layouts.pngs(tmp_path / "in")
    _, dataset, _ = run(tmp_path, "png", fit="pad", size=64)
    # b.png holds 257 times the values of the 8-bit picture, so by 65535 it is the same grey.
    expected = {layouts.xray(number).tobytes() for number in (1, 2, 11, 12)}
    assert {image[12:52, 12:52].tobytes() for image in dataset.images(slice(None))[:, 0]} == expected


def test_an_x_ray_of_low_white_values_is_inverted(tmp_path):
    layouts.xrays(tmp_path / "in")
    _, dataset, rows = run(tmp_path, "xray", fit="pad", size=64)
    pictures = dataset.images(slice(None))[:, 0, 12:52, 12:52].astype(int)
    of_dicom = next(i for i, row in enumerate(rows) if row["modality"] == "DX")
    # 12 bits hold 16 times the 8-bit picture, written the other way round.
    expected = layouts.xray(3).astype(int)
    assert np.abs(pictures[of_dicom] - expected).max() <= 1
    assert np.abs(pictures[1 - of_dicom] - layouts.xray(9)).max() <= 8, "JPEG"


def test_paper_compatible_loses_what_the_paper_lost_and_says_so(tmp_path):
    layouts.ct_liver(tmp_path / "in")
    right, _, _ = run(tmp_path, "ct-liver", size=32)
    papers, dataset, rows = run(tmp_path, "ct-liver", size=32, paper_compatible=True, overwrite=True)
    # The liver of each of the two patients reaches the last of twelve slices.
    assert (right["kept"], papers["kept"]) == (16, 14)
    assert papers["dropped"]["last slice of the volume, lost as in the paper (--paper-compatible)"] == 2
    assert {row["slice_index"] for row in rows} == {str(z) for z in range(4, 11)}
    assert {(row["level"], row["width"]) for row in rows} == {("", "")}
    assert any(warning.startswith("--paper-compatible: each slice has its own range") for warning in papers["warnings"])
    assert dataset.recipe["paper_compatible"] is True
    # Air, fat, liver and bone in every slice: the window's own range, cut to whole numbers instead of rounded.
    assert dataset.images([0])[0, 0, 15, 9] == 134


def test_paper_compatible_where_the_paper_did_nothing_else(tmp_path):
    layouts.chest_xray14(tmp_path / "in")
    plain, _, _ = run(tmp_path, "chest-xray14", size=32)
    papers, _, _ = run(tmp_path, "chest-xray14", size=32, paper_compatible=True, overwrite=True)
    assert plain["kept"] == papers["kept"]
    assert any("changes nothing" in warning for warning in papers["warnings"])


def test_the_papers_count_stands_beside_ours_when_the_data_set_looks_complete(tmp_path, monkeypatch):
    layouts.sliver07(tmp_path / "in")
    assert not any("the paper has" in warning for warning in run(tmp_path, "sliver07", size=32)[0]["warnings"])
    monkeypatch.setattr("medgan.data.recipes.sliver07.RECIPE", dataclasses.replace(RECIPES.get("sliver07"), paper_images=26))
    warnings = run(tmp_path, "sliver07", size=32, overwrite=True)[0]["warnings"]
    assert "24 images kept, the paper has 26" in warnings


@pytest.mark.parametrize("name", ["xray", "png", "chest-xray14", "pneumonia-mnist", "fashion-mnist", "acdc"])
@pytest.mark.parametrize("good", [True, False])
def test_no_file_or_folder_name_leaves_any_recipe(tmp_path, name, good, capfd):
    """Folders, and files where the recipe leaves their names free, are called after a patient."""
    source = tmp_path / "CANARYFOLDER"
    build, _ = layouts.LAYOUTS[name]
    build(source)
    if name in ("xray", "png"):
        for path in [path for path in source.rglob("*") if path.is_file()]:
            path.rename(path.with_name(f"CANARY{path.name}"))
        for folder in list(source.iterdir()):
            folder.rename(folder.with_name(f"CANARY{folder.name}"))
    if not good:
        for path in source.rglob("*"):
            if path.is_file() and path.suffix not in (".csv", ".cfg"):
                path.write_bytes(path.read_bytes()[:60])
    said = ""
    (tmp_path / "result").mkdir()
    config = PrepareConfig(recipe=name, size=32, held_out=0.0, workers=1)
    try:
        said = json.dumps(prepare(config, source, tmp_path / "result" / "out.zip"))
        assert good
    except DataError as error:
        assert not good
        said = error.line
    said += "".join(capfd.readouterr())
    written = [path for path in (tmp_path / "result").rglob("*") if path.is_file()]
    assert bool(written) == good
    contents = b"".join(path.read_bytes() + path.name.encode() for path in written)
    assert "CANARY" not in said
    assert b"CANARY" not in contents
