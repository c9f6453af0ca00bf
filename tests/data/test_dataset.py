import hashlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from medgan.data.dataset import find_dataset, image_name, open_dataset, write_dataset
from medgan.errors import DataError, InputError
from tests.phantoms import ct_nifti


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def greys(n=5, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, size, size)).astype(np.uint8)


def written(path, images, labels=None):
    write_dataset(path, (png(image) for image in images), labels, "image\n", {"name": "ct-liver"})
    return path


def test_what_is_written_is_read_back(tmp_path):
    images = greys()
    dataset = open_dataset(written(tmp_path / "a.zip", images, labels=[0, 1, 2, 1, 0]))
    assert (len(dataset), dataset.channels, dataset.resolution) == (5, 1, 32)
    np.testing.assert_array_equal(dataset.images(slice(None))[:, 0], images)
    np.testing.assert_array_equal(dataset.images([3, 1, 3])[:, 0], images[[3, 1, 3]])
    assert dataset.labels.tolist() == [0, 1, 2, 1, 0]
    assert dataset.recipe == {"name": "ct-liver"}


def test_the_zip_has_the_official_layout(tmp_path):
    written(tmp_path / "a.zip", greys(2), labels=[4, 0])
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["00000/img00000000.png", "00000/img00000001.png", "dataset.json", "manifest.csv", "recipe.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("dataset.json")) == {"labels": [["00000/img00000000.png", 4], ["00000/img00000001.png", 0]]}
    assert image_name(123456) == "00123/img00123456.png"
    written(tmp_path / "b.zip", greys(2))
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


def test_equal_content_gives_equal_bytes(tmp_path):
    one, other = written(tmp_path / "a.zip", greys()), written(tmp_path / "b" / "other.zip", greys())
    assert one.read_bytes() == other.read_bytes()


def test_identity_is_of_pixels_labels_and_recipe_only(tmp_path):
    images = greys()
    base = open_dataset(written(tmp_path / "a.zip", images)).identity
    write_dataset(tmp_path / "b.zip", (png(i, compress_level=0) for i in images), None, "other keys\n", {"name": "ct-liver"})
    assert open_dataset(tmp_path / "b.zip").identity == base
    assert open_dataset(written(tmp_path / "c.zip", images, labels=[0] * 5)).identity != base
    changed = images.copy()
    changed[4, 31, 31] ^= 1
    assert open_dataset(written(tmp_path / "d.zip", changed)).identity != base


def test_an_official_zip_and_a_folder_are_read(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    with zipfile.ZipFile(tmp_path / "official.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in (2, 0, 1):
            archive.writestr(image_name(i), png(images[i], compress_level=0))
        archive.writestr("dataset.json", json.dumps({"labels": [[image_name(i), [0.5 * i, 1.0]] for i in range(3)]}))
    dataset = open_dataset(tmp_path / "official.zip")
    assert dataset.labels.tolist() == [[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(dataset.images([0, 1, 2]), images.transpose(0, 3, 1, 2))
    with zipfile.ZipFile(tmp_path / "official.zip") as archive:
        archive.extractall(tmp_path / "folder")
    assert open_dataset(tmp_path / "folder").identity == dataset.identity
    assert find_dataset(tmp_path / "folder") == tmp_path / "folder"
    assert find_dataset(tmp_path / "official.zip") == tmp_path / "official.zip"


def test_unfit_files_are_listed(tmp_path):
    good = greys(4)
    for i, image in enumerate(good):
        (tmp_path / f"good{i}.png").write_bytes(png(image))
    Image.fromarray(good[0]).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(good[0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(good[0]).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(good[0][:, :20]).save(tmp_path / "narrow.png")
    Image.fromarray(good[0]).convert("RGB").save(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    message = caught.value.message
    assert caught.value.exit_code == 65
    for part in [
        "palette: palette.png", "16 bit: deep.png", "transparency (RGBA or LA): alpha.png", "20 x 32 with 1 channel, unlike the others: narrow.png",
        "32 x 32 with 3 channels, unlike the others: colour.png", "no readable image: text.png",
    ]:  # fmt: skip
        assert part in message
    assert "good" not in message


def test_long_lists_are_cut(tmp_path):
    for i in range(40):
        Image.fromarray(greys(1)[0]).convert("P").save(tmp_path / f"{i:02d}.png")
    with pytest.raises(DataError, match=r"palette: 00.png, .*09.png and 30 more"):
        open_dataset(tmp_path)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_of_pictures_are_kept_back_where_asked(tmp_path, kind):
    folder = tmp_path / "set"
    folder.mkdir()
    for i, image in enumerate(greys(3)):
        (folder / f"DOE_JANE_{i}.png").write_bytes(png(image))

    def message(act=lambda dataset: None, **options):
        source = folder if kind == "folder" else zipped(folder, tmp_path / "set.zip")
        with pytest.raises(DataError) as caught:
            act(open_dataset(source, show_names=False, **options))
        assert "DOE" not in caught.value.line
        return caught.value.message

    def called(number, of, name):
        return f"picture {number} of {of} (sha256 {hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12]})"

    (folder / "dataset.json").write_text(json.dumps({"labels": [["DOE_JANE_0.png", 1], ["DOE_JANE_2.png", 1]]}))
    assert message() == f"dataset.json has no label for {called(2, 3, 'DOE_JANE_1.png')}"
    (folder / "dataset.json").unlink()
    (folder / "DOE_JANE_1.png").write_bytes(png(greys(1)[0])[:90])
    assert message(lambda dataset: dataset.images([0, 1])) == f"{called(2, 3, 'DOE_JANE_1.png')} is broken"
    (folder / "DOE_JOHN.png").write_text("no image")
    Image.fromarray(greys(1)[0]).convert("P").save(folder / "AAA_DOE.png")
    for options in ({}, {"any_size": True}):
        found = message(**options)
        assert f"palette: {called(1, 5, 'AAA_DOE.png')}" in found
        assert f"no readable image: {called(5, 5, 'DOE_JOHN.png')}" in found


def test_our_own_names_are_always_shown(tmp_path):
    images = [png(image) for image in greys(2)]
    write_dataset(tmp_path / "a.zip", [images[0], images[1][:90]], None, "image\n", {})
    with pytest.raises(DataError, match=r"^00000/img00000001\.png is broken"):
        open_dataset(tmp_path / "a.zip", show_names=False).images([1])


def test_any_size_takes_what_no_network_takes(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (3, 30, 44)).astype(np.uint8)
    for i, image in enumerate(wide):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    np.testing.assert_array_equal(open_dataset(tmp_path, any_size=True).images(slice(None))[:, 0], wide)
    (tmp_path / "3.png").write_bytes(png(wide[0].T))
    with pytest.raises(DataError, match=r"30 x 44 with 1 channel, unlike the others: 3\.png"):
        open_dataset(tmp_path, any_size=True)


def test_sheets_are_no_images(tmp_path):
    for i, image in enumerate(greys(2)):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    for name in ("contact_sheet.png", "QC_sheet.png"):
        (tmp_path / name).write_bytes(png(greys(1, size=96)[0]))
    assert open_dataset(tmp_path).names == ["0.png", "1.png"]
    assert find_dataset(tmp_path) == tmp_path
    # Of a zip with its sheet beside it, the zip is the dataset.
    (tmp_path / "made").mkdir()
    made = written(tmp_path / "made" / "synthetic.zip", greys(2))
    (tmp_path / "made" / "contact_sheet.png").write_bytes(png(greys(1, size=96)[0]))
    assert find_dataset(tmp_path / "made") == made


@pytest.mark.parametrize(("shape", "words"), [((32, 48), "not square"), ((48, 48), "no network family takes")])
def test_shapes_no_network_takes(tmp_path, shape, words):
    (tmp_path / "a.png").write_bytes(png(np.zeros(shape, np.uint8)))
    with pytest.raises(DataError, match=words):
        open_dataset(tmp_path)


def test_a_zip_bomb_and_a_leaving_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00000/img00000000.png", b"\0" * 30_000_000)
    with pytest.raises(DataError, match="200 times"):
        open_dataset(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "leaving.zip", "w") as archive:
        archive.writestr("../../img.png", png(greys(1)[0]))
    with pytest.raises(DataError, match="leaves its folder"):
        open_dataset(tmp_path / "leaving.zip")


def test_a_torn_zip_an_empty_one_and_none(tmp_path):
    whole = written(tmp_path / "a.zip", greys())
    torn = tmp_path / "torn.zip"
    torn.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(DataError, match="not a readable zip"):
        open_dataset(torn)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        open_dataset(tmp_path / "empty")
    with pytest.raises(InputError):
        open_dataset(tmp_path / "nothing.zip")


def test_a_label_short_of_the_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i, image in enumerate(greys(2)):
            archive.writestr(image_name(i), png(image))
        archive.writestr("dataset.json", json.dumps({"labels": [[image_name(0), 1]]}))
    with pytest.raises(DataError, match=r"no label for 00000/img00000001\.png"):
        open_dataset(tmp_path / "a.zip")


def test_a_dataset_goes_to_other_processes(tmp_path):
    dataset = open_dataset(written(tmp_path / "a.zip", greys()))
    before = dataset.images([0, 4])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).images([0, 4]), before)


def test_info_of_a_set_made_elsewhere(tmp_path):
    (tmp_path / "set").mkdir()
    for i, image in enumerate(greys(3)):
        (tmp_path / "set" / f"{i}.png").write_bytes(png(image))
    open_dataset(tmp_path / "set").write_info(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["fingerprint.json", "qc_sheet.png"]
    assert Image.open(tmp_path / "run" / "qc_sheet.png").size == (96, 32)


def test_scans_are_no_dataset_and_a_platform_mount_of_one_is(tmp_path):
    ct_nifti(tmp_path / "scans")
    (tmp_path / "scans" / "snapshot.png").write_bytes(png(greys(1)[0]))
    assert find_dataset(tmp_path / "scans") is None
    (tmp_path / "mount" / "ZIP").mkdir(parents=True)
    (tmp_path / "mount" / "ZIP" / "zip_catalog.xml").write_text("<x/>")
    zipped = written(tmp_path / "mount" / "ZIP" / "liver.zip", greys())
    assert find_dataset(tmp_path / "mount") == zipped
