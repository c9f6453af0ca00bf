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


def test_what_an_earlier_run_made_is_no_dataset_of_the_next(tmp_path):
    written(tmp_path / "RESOURCES" / "MEDGAN_SYNTHETIC" / "run-1" / "synthetic.zip", greys(2))
    (tmp_path / "RESOURCES" / "MEDGAN_REPORT").mkdir()
    (tmp_path / "RESOURCES" / "MEDGAN_REPORT" / "sheet.png").write_bytes(png(greys(1)[0]))
    assert find_dataset(tmp_path) is None


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
        "palette: palette.png", "16 bit, unlike the others: deep.png", "transparency (RGBA or LA): alpha.png", "20 x 32 with 1 channel, unlike the others: narrow.png",
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


def official_images(path):
    """What the official reader of a zip gives, written from its description in STYLEGAN2-ADA.md 6.6 alone: images (N, C, H, W) and labels."""
    with zipfile.ZipFile(path) as archive:
        pictures = sorted(name for name in archive.namelist() if name.endswith(".png"))
        assert all(archive.getinfo(name).compress_type == zipfile.ZIP_STORED for name in pictures)
        images = []
        for number, name in enumerate(pictures):
            assert name == f"{f'{number:08d}'[:5]}/img{number:08d}.png"
            pixels = np.array(Image.open(archive.open(name)))
            images.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
            assert images[-1].shape == images[0].shape
            assert images[-1].dtype == np.uint8
        channels, height, width = images[0].shape
        assert channels in (1, 3)
        assert height == width == 2 ** int(np.log2(width))
        labels = json.load(archive.open("dataset.json"))["labels"]
        if labels is None:
            return np.stack(images), None
        table = dict(labels)
        labels = np.array([table[name] for name in pictures])
        return np.stack(images), labels.astype({1: np.int64, 2: np.float32}[labels.ndim])


@pytest.mark.parametrize("labels", [None, [1, 0, 2], [[0.5, 1.0], [0.25, 0.0], [1.0, 1.0]]])
def test_the_official_reader_reads_ours(tmp_path, labels):
    # More than a thousand images lie in more than one folder.
    images = np.concatenate([greys(3)] * 335)
    written(tmp_path / "a.zip", images, None if labels is None else labels * 335)
    theirs, their_labels = official_images(tmp_path / "a.zip")
    np.testing.assert_array_equal(theirs[:, 0], images)
    ours = open_dataset(tmp_path / "a.zip")
    np.testing.assert_array_equal(ours.images(slice(None)), theirs)
    if labels is None:
        assert their_labels is None
        assert ours.labels is None
    else:
        np.testing.assert_array_equal(ours.labels, their_labels)
        assert ours.labels.dtype == their_labels.dtype


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 1), (".bmp", 1), (".tif", 1), (".pgm", 1), (".webp", 3)])
def test_other_picture_formats_are_read(tmp_path, suffix, channels):
    Image.fromarray(np.full((32, 32), 77, np.uint8)).save(tmp_path / f"a{suffix}", lossless=True)
    dataset = open_dataset(tmp_path)
    assert (dataset.channels, np.unique(dataset.images([0])).tolist()) == (channels, [77])


def test_palettes_and_transparency_have_their_name_in_every_format(tmp_path):
    Image.fromarray(np.full((32, 32), 77, np.uint8)).save(tmp_path / "a.gif")
    Image.fromarray(np.full((32, 32, 4), 77, np.uint8)).save(tmp_path / "b.webp", lossless=True)
    with pytest.raises(DataError, match=r"palette: a.gif; transparency \(RGBA or LA\): b.webp"):
        open_dataset(tmp_path)


def deep(path, n=4, size=32):
    images = np.random.default_rng(0).integers(0, 65536, (n, size, size)).astype(np.uint16)
    images[0, 0, :4] = [0, 65535, 128, 129]
    write_dataset(path, (png(image) for image in images), None, "image\n", {"bits": 16})
    return images


def test_sixteen_bits_are_read_whole_and_shown_rounded(tmp_path):
    images = deep(tmp_path / "a.zip")
    dataset = open_dataset(tmp_path / "a.zip")
    assert dataset.bits == 16
    np.testing.assert_array_equal(dataset.stored(slice(None))[:, 0], images)
    assert dataset.images([0])[0, 0, 0, :4].tolist() == [0, 255, 0, 1]
    np.testing.assert_array_equal(dataset.images(slice(None))[:, 0], np.round(images / 257.0))
    one = dataset.identity
    dataset.check(tmp_path / "cache")
    again = open_dataset(tmp_path / "a.zip", cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.stored(slice(None))[:, 0], images)
    assert again.identity == one


def test_a_part_is_drawn_as_the_official_code_draws_it(tmp_path):
    images = greys(9)
    dataset = open_dataset(written(tmp_path / "a.zip", images, labels=[0, 1, 2, 3, 4, 5, 6, 7, 8]))
    part = dataset.limited(4, seed=3)
    order = np.arange(9)
    np.random.RandomState(3).shuffle(order)
    wanted = sorted(order[:4])
    np.testing.assert_array_equal(part.images(slice(None))[:, 0], images[wanted])
    assert part.labels.tolist() == wanted
    assert part.classes == 9
    assert part.names == [image_name(i) for i in wanted]
    assert part.identity != dataset.identity
    assert len(dataset) == 9
    assert dataset.limited(0) is dataset.limited(9) is dataset
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).images([1])[0, 0], images[wanted[1]])
    dataset.check(tmp_path / "cache")
    np.testing.assert_array_equal(dataset.limited(4, seed=3).images([3])[0, 0], images[wanted[3]])


def test_what_was_checked_once_is_not_read_again(tmp_path):
    images = greys(6)
    path = written(tmp_path / "a.zip", images)
    first = open_dataset(path)
    identity = first.identity
    first.check(tmp_path / "cache")
    assert first.decoded_in.parent == tmp_path / "cache"
    np.testing.assert_array_equal(first.images([5, 0])[:, 0], images[[5, 0]])
    # The pixels of the zip are destroyed, its list of files is not: only the kept ones can answer.
    damaged = bytearray(path.read_bytes())
    damaged[100:5000] = bytes(4900)
    path.write_bytes(damaged)
    again = open_dataset(path, cache=tmp_path / "cache")
    again.check(tmp_path / "cache")
    assert again.identity == identity
    np.testing.assert_array_equal(again.images(slice(None))[:, 0], images)
    # Another set of the same name is checked anew, and the old file goes.
    images[2, 3, 3] ^= 255
    path.unlink()
    other = open_dataset(written(path, images), cache=tmp_path / "cache")
    assert other.decoded_in is None
    other.check(tmp_path / "cache")
    np.testing.assert_array_equal(other.images([2])[0, 0], images[2])
    assert len(list((tmp_path / "cache").glob("decoded-*"))) == 2


def test_a_short_disk_means_decoding_not_failing(tmp_path, monkeypatch):
    import shutil

    from medgan.data import decoded

    images = greys(6)
    path = written(tmp_path / "a.zip", images)
    whole = open_dataset(path)
    whole.check(tmp_path / "bounded", most_bytes=6 * 32 * 32 - 1)
    assert whole.decoded_in is None
    np.testing.assert_array_equal(whole.images(slice(None))[:, 0], images)
    free = shutil.disk_usage(tmp_path)._replace(free=decoded.SPARE_BYTES + 6 * 32 * 32 - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    short = open_dataset(path, cache=tmp_path / "short")
    short.check(tmp_path / "short")
    assert short.decoded_in is None
    again = open_dataset(path, cache=tmp_path / "short")
    assert again.identity == whole.identity
    np.testing.assert_array_equal(again.images([4])[0, 0], images[4])


def test_a_disk_that_lies_about_its_room(tmp_path):
    import resource

    path = written(tmp_path / "a.zip", greys(200))
    dataset = open_dataset(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        dataset.check(tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert dataset.decoded_in is None
    assert not list((tmp_path / "cache").glob("*.npy"))
    assert not list((tmp_path / "cache").glob("*.part"))
    assert dataset.identity == open_dataset(path).identity


def test_processes_decode_what_one_decodes(tmp_path, monkeypatch):
    from medgan.data import decoded

    path = written(tmp_path / "a.zip", greys(70))
    one = open_dataset(path)
    one.check(tmp_path / "one")
    monkeypatch.setattr(decoded, "SPAN", 16)
    monkeypatch.setattr(decoded, "FEWEST_PIXELS_FOR_WORKERS", 1)
    many = open_dataset(path)
    steps = []
    many.check(tmp_path / "many", step=lambda done, total: steps.append((done, total)))
    assert one.decoded_in.read_bytes() == many.decoded_in.read_bytes()
    assert one.identity == many.identity
    assert steps[-1] == (70, 70)


def test_all_broken_images_are_listed_before_training(tmp_path):
    images = [png(image) for image in greys(30)]
    for i in (3, 17):
        images[i] = images[i][:120]
    images[20] = images[20][:16] + (64).to_bytes(4, "big") * 2 + images[20][24:]
    for folder, options in ((tmp_path / "cache", {}), (None, {})):
        write_dataset(tmp_path / "a.zip", images[:20], None, "image\n", {})
        with pytest.raises(DataError, match=r"2 of 20 images cannot be used: broken: 00000/img00000003.png, 00000/img00000017.png"):
            open_dataset(tmp_path / "a.zip", **options).check(folder)
    write_dataset(tmp_path / "a.zip", images, None, "image\n", {})
    with pytest.raises(DataError, match=r"64 x 64 with 1 channel, unlike the others: 00000/img00000020.png"):
        open_dataset(tmp_path / "a.zip")
    assert not list((tmp_path / "cache").glob("decoded-*"))


def test_a_picture_that_claims_to_be_huge_is_never_decoded(tmp_path):
    claimed = bytearray(png(greys(1)[0]))
    claimed[16:24] = (60000).to_bytes(4, "big") * 2
    for options in ({}, {"any_size": True}):
        (tmp_path / "a.png").write_bytes(claimed)
        with pytest.raises(DataError, match=r"60000 x 60000 pixels: a\.png"):
            open_dataset(tmp_path, **options)
    (tmp_path / "a.png").unlink()
    bitmap = io.BytesIO()
    Image.fromarray(greys(1)[0]).save(bitmap, "BMP")
    claimed = bytearray(bitmap.getvalue())
    claimed[18:26] = (60000).to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(claimed)
    with pytest.raises(DataError, match=r"more than 67108864 pixels: a.bmp"):
        open_dataset(tmp_path, any_size=True)


def test_a_name_twice_and_several_pictures_in_one_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for image in greys(2):
            with pytest.warns(UserWarning, match="Duplicate") if archive.namelist() else open("/dev/null"):
                archive.writestr("DOE_JANE.png", png(image))
    with pytest.raises(DataError, match=r"holds DOE_JANE.png twice"):
        open_dataset(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"holds a name twice"):
        open_dataset(tmp_path / "a.zip", show_names=False)
    pages = [Image.fromarray(image) for image in greys(3)]
    (tmp_path / "set").mkdir()
    pages[0].save(tmp_path / "set" / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"3 pictures in one file: a.tif"):
        open_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"labels": [["0.png", 1], ["1.png", 0], ["2.png", 0]]}, r"labels 3 images, the set has 2"),
        ({"labels": [["0.png", 1], ["x.png", 0]]}, r"no label for 1.png"),
        ({"labels": [["0.png", 1], ["1.png", 0], ["1.png", 1]]}, "two labels for one image"),
        ({"labels": [["0.png", 1], ["1.png", 2_000_000_000]]}, "a label in dataset.json is 2000000000"),
        ({"labels": [["0.png", -1], ["1.png", 0]]}, "neither class numbers"),
        ({"labels": [["0.png", 0.5], ["1.png", 0]]}, "neither class numbers"),
        ({"labels": [["0.png", [1]], ["1.png", [0, 1]]]}, "neither class numbers"),
        ({"labels": [["0.png", [1.0]], ["1.png", [float("nan")]]]}, "neither class numbers"),
        ({"labels": [["0.png", 1, 2]]}, "no list of"),
        ({"labels": 7}, "no list of"),
    ],
)
def test_labels_that_cannot_be(tmp_path, content, words):
    for i, image in enumerate(greys(2)):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        open_dataset(tmp_path)


def test_labels_may_be_a_dictionary(tmp_path):
    for i, image in enumerate(greys(2)):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1.png": 4, "0.png": 2}}))
    assert open_dataset(tmp_path).labels.tolist() == [2, 4]


@pytest.mark.slow
def test_more_files_than_an_old_zip_can_count(tmp_path):
    one = png(greys(1, size=16)[0])
    write_dataset(tmp_path / "a.zip", (one for _ in range(65_600)), None, "image\n", {})
    dataset = open_dataset(tmp_path / "a.zip")
    assert len(dataset) == 65_600
    np.testing.assert_array_equal(dataset.images([65_599])[0, 0], greys(1, size=16)[0])
