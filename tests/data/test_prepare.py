import csv
import json
import zipfile

import nibabel
import numpy as np
import pytest

from medgan.data.dataset import open_dataset
from medgan.data.prepare import PrepareConfig, prepare
from medgan.errors import ConfigError, DataError, InputError
from tests.phantoms import affine_for, body, ct_nifti, ct_series, dicom_slice, read_dicom, save, turned, write_nifti

# The liver of the phantom reaches from slice 4 to the last of 12.
LIVER_SLICES = list(range(4, 12))


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"k" * 32)
    return str(path)


def small(**settings):
    return PrepareConfig(**{"size": 32, "workers": 1, **settings})


def manifest(out, folder=".info"):
    with (out.with_suffix(folder) / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


def test_images_have_the_windowed_values_of_their_slices(tmp_path):
    ct_nifti(tmp_path / "in")
    out = tmp_path / "out.zip"
    summary = prepare(small(), tmp_path / "in", out)
    assert {name: summary[name] for name in ("kept", "dropped", "patients", "scans", "held_out", "size", "channels")} == {
        "kept": 8, "dropped": {"slice without the label": 4}, "patients": 1, "scans": 1, "held_out": 0, "size": 32, "channels": 1,
    }  # fmt: skip
    dataset = open_dataset(out)
    assert dataset.identity == summary["identity"]
    images = dataset.images(slice(None))[:, 0]
    hu, _ = body()
    # 32 columns and 28 rows: two rows of black above and below, and no resampling at 32 px.
    expected = np.clip((hu - 50) / 350 + 0.5, 0, 1) * 255
    for image, z in zip(images, LIVER_SLICES, strict=True):
        np.testing.assert_array_equal(image[2:30], np.round(expected[:, :, z].T))
        assert not image[:2].any()
        assert not image[30:].any()
    # Liver of 60 HU on the left of the picture, spine at the bottom.
    assert images[0][15, 9] == 135
    assert images[0][24, 16] == 255


@pytest.mark.parametrize("codes", ["LAS", "RPI", "SAR"])
def test_orientation_on_disk_does_not_matter(tmp_path, codes):
    ct_nifti(tmp_path / "a", codes="LPS")
    hu, liver = body()
    volume = turned(hu, codes)
    spacing = tuple(2.0 if code in "SI" else 1.0 for code in codes)
    affine = affine_for(codes, volume.shape, spacing)
    write_nifti(tmp_path / "b" / "ct.nii", volume, affine)
    # The mask lies on yet another grid.
    write_nifti(tmp_path / "b" / "mask.nii", turned(liver, "LAS"), affine_for("LAS", liver.shape), dtype=np.uint8)
    ours = [prepare(small(), tmp_path / name, tmp_path / f"{name}.zip")["identity"] for name in "ab"]
    assert ours[0] == ours[1]


def test_dicom_and_nifti_of_one_scan_give_the_same_images(tmp_path):
    hu, liver = body()
    ct_nifti(tmp_path / "a")
    ct_series(tmp_path / "b" / "series", hu)
    write_nifti(tmp_path / "b" / "liver.nii.gz", turned(liver, "LAS"), affine_for("LAS", liver.shape), dtype=np.uint8)
    ours = [prepare(small(), tmp_path / name, tmp_path / f"{name}.zip")["identity"] for name in "ab"]
    assert ours[0] == ours[1]


def test_sixteen_bits_keep_what_eight_round_away(tmp_path):
    ct_nifti(tmp_path / "in")
    prepare(small(bits=16), tmp_path / "in", tmp_path / "deep.zip")
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    deep = open_dataset(tmp_path / "deep.zip")
    assert deep.bits == 16
    assert deep.recipe["bits"] == 16
    hu, _ = body()
    expected = np.round(np.clip((hu - 50) / 350 + 0.5, 0, 1) * 65535)
    for image, z in zip(deep.stored(slice(None))[:, 0], LIVER_SLICES, strict=True):
        np.testing.assert_array_equal(image[2:30], expected[:, :, z].T)
    # Liver of 60 HU: (60 - 50) / 350 + 0.5 -> 34640, which 8 bits can only call 135.
    assert deep.stored([0])[0, 0, 15, 9] == 34640
    assert deep.identity != summary["identity"]
    assert prepare(small(bits=16), tmp_path / "in", tmp_path / "deep.zip")["identity"] == deep.identity
    with pytest.raises(ConfigError, match="--bits 12"):
        small(bits=12)


def test_the_manifest_says_what_was_done(tmp_path, key):
    hu, liver = body()
    ct_series(tmp_path / "in" / "s", hu)
    write_nifti(tmp_path / "in" / "m.nii", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    out = tmp_path / "out.zip"
    prepare(small(pseudonym_key=key), tmp_path / "in", out)
    rows = manifest(out)
    assert [int(row["slice_index"]) for row in rows] == LIVER_SLICES
    first = {name: rows[0][name] for name in ("image", "n_slices", "plane", "modality", "spacing_mm", "rows", "columns", "preset", "level", "width", "orientation", "mask_label", "mask_pixels", "split")}  # fmt: skip
    assert first == {
        "image": "00000/img00000000.png", "n_slices": "12", "plane": "axial", "modality": "CT", "spacing_mm": "2x1x1", "rows": "28", "columns": "32",
        "preset": "ct-liver", "level": "50", "width": "350", "orientation": "LPS", "mask_label": "1", "mask_pixels": str(int(liver[:, :, 4].sum())),
        "split": "train",
    }  # fmt: skip
    with zipfile.ZipFile(out) as archive:
        assert archive.read("manifest.csv") == (tmp_path / "out.info" / "manifest.csv").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out.info").iterdir()) == [
        "excluded.csv", "fingerprint.json", "manifest.csv", "qc_sheet.png", "recipe.json", "run.json", "splits.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out.info" / "fingerprint.json").read_text())["spacing_mm"] == {"2x1x1": 1}


def cohort(folder, patients, names="patient{}"):
    for i in range(patients):
        ct_nifti(folder / names.format(i), shift=i)
        if i == 0:
            ct_nifti(folder / names.format(i) / "later", shift=50)


def test_order_split_and_bytes_depend_on_content_key_and_seed_only(tmp_path, key):
    cohort(tmp_path / "a", 11)
    # Elsewhere, under another name, and with folders in another order: only keys made of folder names may change.
    cohort(tmp_path / "elsewhere" / "b", 11)
    cohort(tmp_path / "renamed", 11, names="x{}y")
    reference = prepare(small(pseudonym_key=key), tmp_path / "a", tmp_path / "1.zip")
    assert (reference["patients"], reference["scans"], reference["kept"]) == (11, 12, 96)
    assert reference["held_out"] in (8, 16)
    for name, config, source in [
        ("again", small(pseudonym_key=key), "a"),
        ("moved", small(pseudonym_key=key), "elsewhere/b"),
        ("parallel", small(pseudonym_key=key, workers=2), "a"),
    ]:
        prepare(config, tmp_path / source, tmp_path / f"{name}.zip")
        for suffix in (".zip", ".held-out.zip", ".info/excluded.csv", ".info/splits.json", ".info/fingerprint.json", ".info/qc_sheet.png"):
            assert (tmp_path / f"{name}{suffix}").read_bytes() == (tmp_path / f"1{suffix}").read_bytes(), f"{name}{suffix}"
    for name, config, source in [("keyless", small(), "a"), ("renamed", small(pseudonym_key=key), "renamed")]:
        assert prepare(config, tmp_path / source, tmp_path / f"{name}.zip")["identity"] == reference["identity"]
        without_keys = [
            [{k: v for k, v in row.items() if not k.endswith("_key")} for row in manifest(tmp_path / f"{z}.zip")] for z in (name, "1")
        ]
        assert without_keys[0] == without_keys[1]
    splits = [prepare(small(seed=seed), tmp_path / "a", tmp_path / "seed.zip")["identity"] for seed in range(1, 4)]
    assert any(identity != reference["identity"] for identity in splits)


def test_no_patient_is_on_both_sides(tmp_path):
    cohort(tmp_path / "in", 11)
    out = tmp_path / "out.zip"
    summary = prepare(small(held_out=0.3), tmp_path / "in", out)
    rows = manifest(out)
    sides = {split: {row["subject_key"] for row in rows if row["split"] == split} for split in ("train", "held-out")}
    assert (len(sides["train"]), len(sides["held-out"])) == (8, 3)
    assert not sides["train"] & sides["held-out"]
    assert len(open_dataset(tmp_path / "out.held-out.zip")) == summary["held_out"]
    assert len(open_dataset(out)) == summary["kept"] - summary["held_out"]
    # A second run without a split leaves no old half behind.
    prepare(small(held_out=0), tmp_path / "in", out)
    assert not (tmp_path / "out.held-out.zip").exists()


def test_flat_files_are_patients_by_their_bids_names_and_warned_of_without(tmp_path):
    for i in range(3):
        ct_nifti(tmp_path / "bids", f"sub-{i // 2}_run-{i}_ct.nii.gz", shift=i, mask="")
        ct_nifti(tmp_path / "flat", f"scan{i}.nii.gz", shift=i, mask="")
    bids = prepare(small(mask_label=-1), tmp_path / "bids", tmp_path / "bids.zip")
    flat = prepare(small(mask_label=-1), tmp_path / "flat", tmp_path / "flat.zip")
    assert (bids["patients"], flat["patients"]) == (2, 3)
    warned = [any("name no patient" in text for text in summary["warnings"]) for summary in (bids, flat)]
    assert warned == [False, True]
    assert any(text.startswith("3 files name no patient, each counts as one") for text in flat["warnings"])


def test_dicom_and_nifti_of_one_xnat_session_are_one_patient(tmp_path, key):
    for i in range(11):
        hu, _ = body(shift=i)
        scans = tmp_path / "in" / f"S{i}" / "SCANS"
        ct_series(scans / "1" / "DICOM", hu, PatientID=f"PID{i}", StudyInstanceUID=f"1.{i}", SeriesInstanceUID=f"1.{i}.1")
        # Another reconstruction: no image equals one of the series.
        ct_nifti(scans / "3" / "NIFTI", shift=i + 20, mask="")
    for share in (0.1, 0.3, 0.5):
        out = tmp_path / "out.zip"
        summary = prepare(small(mask_label=-1, held_out=share, pseudonym_key=key), tmp_path / "in", out)
        assert (summary["patients"], summary["scans"], summary["kept"]) == (11, 22, 22 * 12)
        sides = {(row["subject_key"], row["split"]) for row in manifest(out)}
        assert len(sides) == len({subject for subject, _ in sides}) == 11
        assert all(sum(row["subject_key"] == subject for row in manifest(out)) == 24 for subject, _ in sides)


def test_one_bad_scan_is_listed_and_the_others_go_on(tmp_path):
    ct_nifti(tmp_path / "in" / "good")
    bad = ct_nifti(tmp_path / "in" / "bad", shift=3)
    bad.write_bytes(bad.read_bytes()[:-200])
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert summary["kept"] == 8
    assert summary["dropped"] == {"unreadable (EOFError)": 12, "slice without the label": 4}


def test_a_truncated_slice_leaves_the_others_their_labels(tmp_path):
    hu, liver = body()
    files = ct_series(tmp_path / "in" / "s", hu)
    files[6].write_bytes(files[6].read_bytes()[:-500])
    write_nifti(tmp_path / "in" / "m.nii", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert summary["kept"] == 7
    assert sum(summary["dropped"].values()) == 5
    hu = np.delete(hu, 6, axis=2)
    expected = np.round(np.clip((hu - 50) / 350 + 0.5, 0, 1) * 255)
    for image, z in zip(open_dataset(tmp_path / "out.zip").images(slice(None))[:, 0], range(4, 11), strict=True):
        np.testing.assert_array_equal(image[2:30], expected[:, :, z].T)
    assert any("gaps" in warning for warning in summary["warnings"])
    with pytest.raises(DataError, match="no coronal plane"):
        prepare(small(plane="coronal"), tmp_path / "in", tmp_path / "out2.zip")


def test_a_copy_of_a_scan_is_counted_once(tmp_path):
    for name in ("a", "b"):
        ct_nifti(tmp_path / "in" / name)
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert (summary["kept"], summary["patients"]) == (8, 1)
    assert summary["dropped"]["duplicate: the same pixels as in another scan"] == 8


def test_an_absent_label_lists_those_present(tmp_path):
    ct_nifti(tmp_path / "in", label=5)
    with pytest.raises(DataError, match='0 of 12 slices kept: no voxel of label 1 or "liver"; labels seen: 5') as caught:
        prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert caught.value.exit_code == 65
    assert caught.value.fix == "--mask-label 5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"], "nothing half-written stays"


@pytest.mark.parametrize("where", ["masks", "masks/one.nii"])
def test_masks_may_lie_elsewhere(tmp_path, where):
    ct_nifti(tmp_path / "in", mask="decoy.nii.gz", label=1)
    _, liver = body()
    liver[:, :, 6:] = 0
    write_nifti(tmp_path / "masks" / "one.nii", turned(liver, "LAS"), affine_for("LAS", liver.shape), dtype=np.uint8)
    summary = prepare(small(masks=str(tmp_path / where)), tmp_path / "in", tmp_path / "out.zip")
    assert summary["kept"] == 2, "the decoy beside the scan is not used"


def test_without_any_mask_the_message_helps(tmp_path):
    ct_nifti(tmp_path / "in", mask="")
    with pytest.raises(DataError, match="no label map lies where the scan lies") as caught:
        prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert "--mask-label -1" in caught.value.fix
    assert prepare(small(mask_label=-1), tmp_path / "in", tmp_path / "out.zip")["kept"] == 12


def test_an_mr_is_no_ct(tmp_path):
    hu, _ = body()
    ct_series(tmp_path / "in" / "mr", hu, Modality="MR", SeriesInstanceUID="1.7")
    values = np.clip(turned(hu, "RAS"), 0, None) + np.arange(12)
    # Interpolation leaves some values far below zero.
    values[0, :2, 0] = -300
    write_nifti(tmp_path / "in" / "mr.nii", values, affine_for("RAS", hu.shape))
    with pytest.raises(DataError, match=r"modality MR, the recipe takes CT \(12\).*not HU \(12\)"):
        prepare(small(mask_label=-1), tmp_path / "in", tmp_path / "out.zip")


def test_an_mr_takes_its_window_from_the_volume(tmp_path):
    hu, _ = body()
    ct_series(tmp_path / "in", hu + 1000, Modality="MR", intercept=0)
    summary = prepare(small(mask_label=-1, window_preset="mr-minmax"), tmp_path / "in", tmp_path / "out.zip")
    assert summary["kept"] == 12
    row = manifest(tmp_path / "out.zip")[0]
    # 0 to 1700, the same in every slice.
    assert (row["level"], row["width"], row["modality"], row["preset"]) == ("850", "1700", "MR", "mr-minmax")
    assert open_dataset(tmp_path / "out.zip").images([5])[0, 0, 15, 9] == round(1060 / 1700 * 255)


def test_burned_in_annotation_is_refused_unless_it_is_allowed_and_synthetic_data_always(tmp_path):
    hu, _ = body()
    ct_series(tmp_path / "in", hu, BurnedInAnnotation="YES")
    with pytest.raises(DataError, match=r"annotation burned into the pixels"):
        prepare(small(mask_label=-1), tmp_path / "in", tmp_path / "out.zip")
    assert prepare(small(mask_label=-1, allow_burned_in=True), tmp_path / "in", tmp_path / "out.zip")["kept"] == 12
    for path in (tmp_path / "in").iterdir():
        data = read_dicom(path)
        data.add_new(0x0008001C, "CS", "YES")
        save(data, path)
    with pytest.raises(DataError, match="marked as synthetic data"):
        prepare(small(mask_label=-1, allow_burned_in=True), tmp_path / "in", tmp_path / "out2.zip")


def test_an_empty_source_and_one_without_scans(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError):
        prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    (tmp_path / "in" / "a.txt").write_text("x")
    (tmp_path / "in" / "a.png").write_text("x")
    with pytest.raises(DataError, match=r"no scan in the input.*1 pictures") as caught:
        prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert caught.value.exit_code == 65


def test_a_result_inside_the_source_is_not_read_again(tmp_path):
    ct_nifti(tmp_path / "in")
    first = prepare(small(), tmp_path / "in", tmp_path / "in" / "out.zip")
    assert prepare(small(), tmp_path / "in", tmp_path / "in" / "out.zip")["identity"] == first["identity"]


def test_not_a_number_is_black_and_changes_nothing_else(tmp_path):
    hu, liver = body()
    hu[20, 10, 6] = np.nan
    hu[21, 10, 6] = np.inf
    affine = affine_for("LPS", hu.shape)
    write_nifti(tmp_path / "in" / "ct.nii", hu, affine, dtype=np.float32)
    write_nifti(tmp_path / "in" / "m.nii", liver, affine, dtype=np.uint8)
    prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    image = open_dataset(tmp_path / "out.zip").images([2])[0, 0]
    assert image[12, 20] == image[12, 21] == 0
    assert image[12, 18] == 18  # fat: (-100 - 50) / 350 + 0.5 -> 18.2


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"size": 100}, "--size 100"), ({"window": (50.0, 0.0)}, "--window 50 0"), ({"held_out": 1.0}, "--held-out 1"), ({"recipe": "ct-livre"}, "ct-livre"), ({"window": (1.0, 2.0), "window_preset": "ct-lung"}, "exclude each other")],
)  # fmt: skip
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(ConfigError, match=words):
        PrepareConfig(**settings)


def test_settings_change_the_recipe():
    recipe = PrepareConfig(size=64, mask_label=5, window_preset="ct-lung", plane="sagittal", min_mask_pixels=10).resolved()
    assert (recipe.size, recipe.mask_label, recipe.level, recipe.width, recipe.plane, recipe.min_mask_pixels) == (
        64,
        5,
        -600,
        1500,
        "sagittal",
        10,
    )
    assert PrepareConfig(window=(40.0, 400.0)).resolved().preset == ""


def test_enlarging_is_warned_of(tmp_path):
    ct_nifti(tmp_path / "in")
    warnings = prepare(small(size=64), tmp_path / "in", tmp_path / "out.zip")["warnings"]
    assert "1 of 1 scans are enlarged, by up to 2.0: a smaller --size loses nothing" in warnings


CANARIES = {
    "PatientName": "CANARYNAME^ANNA", "PatientID": "CANARYID77", "PatientBirthDate": "19011213", "StudyDate": "19020304", "AccessionNumber": "CANARYACC",
    "InstitutionName": "CANARYHOSPITAL", "ReferringPhysicianName": "CANARYDOCTOR", "StudyInstanceUID": "1.2.840.99999.1", "SeriesInstanceUID": "1.2.840.99999.2",
    "SeriesDescription": "CANARYSERIES", "StationName": "CANARYSTATION",
}  # fmt: skip
TRACES = ("CANARY", "19011213", "19020304", "1.2.840.99999", "canary")


def canary_tree(folder):
    hu, liver = body()
    files = ct_series(folder / "CANARYFOLDER" / "s", hu, **CANARIES)
    for path in files:
        path.rename(path.with_name(f"CANARYFILE{path.name}"))
    localiser = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **CANARIES)
    localiser.private_block(0x0011, "CANARYCREATOR", create=True).add_new(1, "LO", "CANARYPRIVATE")
    save(localiser, folder / "CANARYFOLDER" / "CANARYLOC")
    write_nifti(
        folder / "CANARYFOLDER" / "canary_mask.nii",
        turned(liver, "RAS"),
        affine_for("RAS", liver.shape),
        dtype=np.uint8,
        description="CANARYDESCRIP",
    )
    bad = ct_nifti(folder / "CANARYOTHER", "CANARY.nii.gz", shift=2)
    bad.write_bytes(bad.read_bytes()[:-100])
    truncated = files[6].with_name(f"CANARYFILE{files[6].name}")
    truncated.write_bytes(truncated.read_bytes()[:-100])


@pytest.mark.parametrize("label", [0, 9])
def test_no_identity_leaves_the_room(tmp_path, label, capfd, caplog, recwarn):
    import logging

    canary_tree(tmp_path / "CANARYSOURCE")
    said = ""
    with caplog.at_level(logging.DEBUG):
        if label:
            with pytest.raises(DataError) as caught:
                prepare(small(mask_label=label), tmp_path / "CANARYSOURCE", tmp_path / "result" / "out.zip")
            said = caught.value.line
        else:
            summary = prepare(small(), tmp_path / "CANARYSOURCE", tmp_path / "result" / "out.zip")
            assert summary["kept"] == 7
            said = json.dumps(summary)
    said += caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    written = [path for path in (tmp_path / "result").rglob("*") if path.is_file()]
    assert len(written) == (0 if label else 8)
    contents = b"".join(path.read_bytes() + path.name.encode() for path in written)
    for trace in TRACES:
        assert trace not in said
        assert trace.encode() not in contents


def test_volumes_of_one_file_are_one_file_in_the_warning(tmp_path):
    (tmp_path / "in").mkdir()
    volumes = np.random.default_rng(0).integers(1, 1000, (16, 16, 4, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volumes, np.eye(4)), tmp_path / "in" / "cine.nii.gz")
    with pytest.raises(DataError, match="4-D") as caught:
        prepare(PrepareConfig(recipe="mr", workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert caught.value.fix.startswith("--frames all")
    summary = prepare(PrepareConfig(recipe="mr", size=32, frames="all", workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert (summary["scans"], summary["patients"]) == (3, 1)
    assert not any("name no patient" in text for text in summary["warnings"])


def test_a_label_map_that_nobody_asked_for_is_listed(tmp_path):
    ct_nifti(tmp_path / "in")
    summary = prepare(PrepareConfig(recipe="ct", size=32, workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert (summary["kept"], summary["dropped"]) == (12, {"label map, and no label is asked for": 1})
    with pytest.raises(ConfigError, match="--masks, but the recipe ct keeps every slice"):
        PrepareConfig(recipe="ct", masks=str(tmp_path))
    assert PrepareConfig(recipe="ct", masks=str(tmp_path), mask_label=1).resolved().by_mask


def test_values_that_are_no_hu_have_a_way_out(tmp_path):
    write_nifti(tmp_path / "in" / "a.nii", np.arange(4096).reshape(16, 16, 16), np.eye(4))
    with pytest.raises(DataError, match="they are not HU") as caught:
        prepare(small(mask_label=-1), tmp_path / "in", tmp_path / "out.zip")
    assert "--recipe mr --window L W" in caught.value.fix
    config = PrepareConfig(recipe="mr", window=(2000.0, 4000.0), size=32, workers=1)
    assert prepare(config, tmp_path / "in", tmp_path / "out.zip")["kept"] == 16
