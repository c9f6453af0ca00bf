"""The developers' real scans: 20 JPEG-2000 slices without series UID whose label map lies flipped, and a 3 mm NIfTI volume."""

import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from medgan.data.dataset import open_dataset
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.windowing import PercentileWindow
from tests.data.test_prepare import manifest


@pytest.fixture(scope="module")
def series(scans, tmp_path_factory):
    """The DICOM sample prepared at its own size, 512 px."""
    out = tmp_path_factory.mktemp("real") / "dicom.zip"
    return out, prepare(PrepareConfig(mask_label=5, workers=1), scans / "ct_abdomen_dicom", out)


def itk_volume(folder):
    names = sorted(str(path) for path in folder.iterdir())
    reader = SimpleITK.ImageFileReader()

    def position(name):
        reader.SetFileName(name)
        reader.ReadImageInformation()
        return reader.GetOrigin()[2]

    names.sort(key=position)
    return np.concatenate([SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(name)) for name in names])


def test_every_slice_is_kept_and_equals_simple_itk(scans, series):
    out, summary = series
    assert (summary["kept"], summary["patients"], summary["scans"], summary["dropped"]) == (20, 1, 1, {})
    hu = itk_volume(scans / "ct_abdomen_dicom" / "series").astype(np.float32)
    expected = np.round(np.clip((hu - 50) / 350 + 0.5, 0, 1) * 255)
    # Axial rows of this head-first supine scan already run as on a light box: no flip may happen.
    difference = np.abs(open_dataset(out).images(slice(None))[:, 0] - expected)
    # 127.5 and the like may round either way.
    assert difference.max() <= 1
    assert np.count_nonzero(difference) < 1e-4 * difference.size


def test_the_flipped_label_map_covers_the_liver(scans, series):
    out, _ = series
    labels = np.asarray(nibabel.load(scans / "ct_abdomen_dicom" / "labels_totalsegmentator.nii.gz").dataobj)
    assert [int(row["mask_pixels"]) for row in manifest(out)] == [int((labels[:, :, z] == 5).sum()) for z in range(20)]
    from medgan.data.masks import resample_labels

    image = nibabel.load(scans / "ct_abdomen_dicom" / "liver_mask.nii.gz")
    affine = np.array([[-0.9765625, 0, 0, 249.51171875], [0, -0.9765625, 0, 437.51171875], [0, 0, 2, -804.5], [0, 0, 0, 1]])
    mask = resample_labels(np.asarray(image.dataobj), image.affine, (512, 512, 20), affine, None)
    hu = itk_volume(scans / "ct_abdomen_dicom" / "series").transpose(2, 1, 0)
    # Contrast-enhanced liver is near 110 HU and even; taken by index instead of by affine the mask would be half air.
    assert 90 < np.median(hu[mask > 0]) < 130
    assert np.mean(hu[mask > 0] < 0) < 0.01
    assert np.mean(hu[mask[:, ::-1] > 0] < 0) > 0.2


def test_the_same_anatomy_from_nifti(scans, series, tmp_path):
    """The DICOM voxels stored as NIfTI in LAS, as the label map is, give the same pictures."""
    hu = itk_volume(scans / "ct_abdomen_dicom" / "series").transpose(2, 1, 0)[:, ::-1]
    mask = nibabel.load(scans / "ct_abdomen_dicom" / "labels_totalsegmentator.nii.gz")
    nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), mask.affine), tmp_path / "ct.nii.gz")
    masks = str(scans / "ct_abdomen_dicom" / "labels_totalsegmentator.nii.gz")
    summary = prepare(PrepareConfig(mask_label=5, masks=masks, workers=1), tmp_path / "ct.nii.gz", tmp_path / "out.zip")
    assert summary["identity"] == series[1]["identity"]


def test_the_last_slice_is_kept_and_the_first_ones_are_not(scans, tmp_path):
    summary = prepare(PrepareConfig(mask_label=5, size=64, workers=1), scans / "ct_abdomen_nifti", tmp_path / "out.zip")
    assert summary["dropped"] == {"slice without the label": 69}
    assert [int(row["slice_index"]) for row in manifest(tmp_path / "out.zip")] == list(range(69, 112))


def test_both_layouts_in_one_folder_as_the_demo_has_them(scans, tmp_path):
    source = tmp_path / "reference_files"
    shutil.copytree(scans / "ct_abdomen_dicom" / "series", source / "example_ct_dicom")
    for ours, theirs in [
        ("ct_abdomen_dicom/labels_totalsegmentator.nii.gz", "example_seg_dicom.nii.gz"),
        ("ct_abdomen_nifti/ct.nii.gz", "example_ct.nii.gz"),
        ("ct_abdomen_nifti/labels_totalsegmentator.nii.gz", "example_seg_fast_force_split.nii.gz"),
        ("mr_abdomen_nifti/mr_abdomen.nii.gz", "example_mr_sm.nii.gz"),
    ]:
        shutil.copy(scans / ours, source / theirs)
    summary = prepare(PrepareConfig(mask_label=5, size=64, held_out=0.0, workers=1), source, tmp_path / "out.zip")
    assert (summary["kept"], summary["patients"], summary["scans"]) == (63, 2, 2)
    images = open_dataset(tmp_path / "out.zip").images(slice(None))[:, 0].astype(float)
    # Upright: the spine is the brightest part of the middle, and lies in the lower half. Liver: the left third is denser than the right one.
    middle = images.mean(0)[:, 28:36]
    assert middle[32:52].max() > middle[12:32].max() + 30
    upper = images[43:] if summary["kept"] == 63 else images
    assert upper[:, 20:40, 10:24].mean() > upper[:, 20:40, 40:54].mean()


def test_a_cine_of_twenty_phases_is_no_stack_of_two_hundred(scans):
    from medgan.data.scans import find_scans, walk

    found = find_scans(walk(scans / "mr_cine_dicom" / "SCD0000301"))
    assert len(found.scans) == 20
    assert {scan.shape for scan in found.scans} == {(256, 256, 10)}


@pytest.mark.parametrize(("name", "train", "test", "copies"), [("normal", 1214, 234, 1), ("pneumonia", 3494, 390, 20)])
def test_pneumonia_mnist_has_its_published_counts(scans, tmp_path, name, train, test, copies):
    """Counts of MedMNIST v2; the exact copies in it are left out, one of them in another part than its twin."""
    config = PrepareConfig(recipe="pneumonia-mnist", only_class=name, workers=1)
    summary = prepare(config, scans / "xray" / "pneumoniamnist_rebuilt.npz", tmp_path / "out.zip")
    assert summary["kept"] == train + test - copies
    assert summary["dropped"]["duplicate: the same pixels as in another scan"] == copies
    assert summary["dropped"]["of another class"] == 4708 + 624 - train - test
    with np.load(scans / "xray" / "pneumoniamnist_rebuilt.npz") as arrays:
        of_class = arrays["train_images"][arrays["train_labels"][:, 0] == (name == "pneumonia")]
    _, first = np.unique(of_class.reshape(len(of_class), -1), axis=0, return_index=True)
    np.testing.assert_array_equal(open_dataset(tmp_path / "out.zip").images(slice(None))[:, 0], of_class[np.sort(first)])


def test_trousers_of_the_fashion_sprite(scans, tmp_path):
    summary = prepare(PrepareConfig(recipe="fashion-mnist", only_class="trouser", workers=1), scans / "fashion", tmp_path / "out.zip")
    with np.load(scans / "fashion" / "fashion_mnist_sprite900.npz") as arrays:
        assert str(arrays["names"][1]).lower() == "trouser"
        np.testing.assert_array_equal(open_dataset(tmp_path / "out.zip").images(slice(None))[:, 0], arrays["images"][90:180])
    assert (summary["kept"], summary["dropped"]) == (90, {"of another class": 810})


def test_a_cine_in_acdcs_layout(scans, tmp_path):
    patient = tmp_path / "in" / "patient001"
    patient.mkdir(parents=True)
    shutil.copy(scans / "mr_cine_nifti" / "SCD0000301_4d.nii.gz", patient / "patient001_4d.nii.gz")
    (patient / "Info.cfg").write_text("ED: 1\nES: 9\nNbFrame: 20\n")
    summary = prepare(PrepareConfig(recipe="acdc", workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert (summary["kept"], summary["patients"], summary["dropped"]) == (20, 1, {})
    values = np.asarray(nibabel.load(patient / "patient001_4d.nii.gz").dataobj[..., 8], np.float64)
    expected = np.round((values - values.min()) / np.ptp(values) * 255)
    rows = manifest(tmp_path / "out.zip")
    images = open_dataset(tmp_path / "out.zip").images(slice(None))[:, 0]
    es = [image for image, row in zip(images, rows, strict=True) if row["label"] == "ES"]
    for z, image in enumerate(es):
        # 256 px in the middle of 512, as stored: columns run to the right.
        assert np.abs(image[128:384, 128:384] - expected[:, :, z].T).max() <= 1
        assert not image[:128].any()


def test_a_chest_x_ray_of_the_nih_is_taken_as_published(scans, tmp_path):
    place = tmp_path / "in" / "images_001" / "images"
    place.mkdir(parents=True)
    shutil.copy(scans / "xray" / "nih_00000001_000.png", place / "00000001_000.png")
    prepare(PrepareConfig(recipe="chest-xray14", size=512, workers=1), tmp_path / "in", tmp_path / "out.zip")
    with Image.open(place / "00000001_000.png") as original:
        np.testing.assert_array_equal(open_dataset(tmp_path / "out.zip").images([0])[0, 0], np.asarray(original.convert("L")))


def test_an_x_ray_whose_low_values_are_white_has_dark_lungs(scans, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(scans / "xray" / "gdcm-CR-MONO1-10-chest.dcm", source / "a.dcm")
    prepare(PrepareConfig(recipe="xray", size=256, workers=1), source, tmp_path / "out.zip")
    image = open_dataset(tmp_path / "out.zip").images([0])[0, 0].astype(float)
    # The lungs, left and right of the middle, are darker than the spine and than what lies below the diaphragm.
    assert max(image[80:150, 60:90].mean(), image[80:150, 170:200].mean()) < image[80:220, 118:138].mean()


def test_the_phases_of_the_cine_are_those_of_its_nifti_twin(scans):
    from medgan.data.scans import Place, Volume, find_scans, walk
    from medgan.data.slices import load
    from medgan.data.volumes import read_geometry, read_volume

    path = scans / "mr_cine_nifti" / "SCD0000301_4d.nii.gz"
    shape, affine, _ = read_geometry(path)
    assert shape == (256, 256, 10, 20)
    found = find_scans(walk(scans / "mr_cine_dicom" / "SCD0000301"))
    for phase in (0, 7, 19):
        twin, twin_affine = read_volume(Volume(path=path, place=Place((path.name,)), shape=shape, affine=affine), phase)
        ours = load(found.scans[phase])
        # Both on the axes of the NIfTI file: where its voxel (0, 0, 0) lies, ours must be the same value.
        voxels = np.linalg.inv(ours.affine) @ twin_affine
        turn = np.round(voxels[:3, :3]).astype(int)
        np.testing.assert_allclose(voxels[:3, :3], turn, atol=1e-3)
        index = np.stack(np.meshgrid(*[np.arange(n) for n in (256, 256, 10)], indexing="ij"), axis=-1) @ turn.T + np.round(
            voxels[:3, 3]
        ).astype(int)
        np.testing.assert_array_equal(ours.values.numpy()[tuple(np.moveaxis(index, -1, 0))], twin)


@pytest.mark.parametrize("modality", ["flair", "t1", "t1c", "t2"])
def test_a_skull_stripped_brain_takes_its_window_from_the_brain(scans, modality):
    """Negative voxels of interpolation reach 8 % of the range below the zeros; numpy's percentiles of what is above zero decide."""
    volume = np.asarray(nibabel.load(scans / "mr_brain_4mod" / f"TCGA-FG-6692_{modality}.nii.gz").dataobj, np.float32)
    window = PercentileWindow(0.5, 99.5).fit(torch.from_numpy(volume))
    ends = (window.level - window.width / 2, window.level + window.width / 2)
    # Every third voxel is asked for the percentiles.
    assert ends == pytest.approx(np.percentile(volume[volume > 0], [0.5, 99.5]), abs=1)
