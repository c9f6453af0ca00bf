"""Synthetic DICOM: what it says of itself, the values a reader gets, and what a validator has to say."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from click.testing import CliRunner
from PIL import Image
from pydicom.pixels import apply_rescale, apply_voi_lut
from pydicom.uid import UID

from medgan.cli import main
from medgan.data import RECIPES
from medgan.data.recipe import Recipe
from medgan.networks.bundle import write_bundle
from medgan.networks.stylegan2 import Generator
from medgan.sampling.dicom import dicom_bytes, uid
from medgan.sampling.formats import marks
from medgan.sampling.generate import Drawing, write_images

MODEL = "ab" * 32
LIVER = RECIPES.get("ct-liver").to_dict()


def about(recipe=None, family: str = "stylegan2"):
    return {"medgan": {"model_sha256": MODEL, "family": family, "recipe": recipe}}


def instance(image: np.ndarray, recipe=LIVER, *, seed: int = 3, **facts) -> pydicom.Dataset:
    said = marks(MODEL, seed=seed, **(facts or {"psi": "1", "noise": "random"}))
    return pydicom.dcmread(io.BytesIO(dicom_bytes(image, said, about(recipe))))


RAMP = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
COLOUR = np.stack([RAMP[0], RAMP[0][::-1], RAMP[0].T])


def test_it_says_everywhere_that_it_is_synthetic_and_of_nobody():
    ds = instance(RAMP)
    assert ds[0x0008, 0x001C].value == "YES"  # Synthetic Data, PS3.3 C.12.1
    assert (ds.ConversionType, ds.Modality) == ("SYN", "OT")
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    (equipment,) = ds.ContributingEquipmentSequence
    purpose = equipment.PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == ("109100", "DCM", "Synthesizing Equipment")
    assert MODEL in equipment.ContributionDescription
    for text in (ds.ImageComments, ds.DerivationDescription, ds.SeriesDescription, ds.StudyDescription, equipment.ContributionDescription):
        assert "not for diagnostic use" in text.lower()
    assert "seed 3" in ds.ImageComments
    assert "psi 1" in ds.ImageComments
    assert MODEL in ds.ImageComments
    assert str(ds.PatientName) == "Synthetic^Image"
    assert ds.PatientID == f"SYNTHETIC-{MODEL[:16]}"
    dated = [e.keyword for e in ds.iterall() if e.VR in ("DA", "TM", "DT") and e.value]
    assert dated == []
    assert not ds.PatientSex
    assert not ds.ReferringPhysicianName
    assert not ds.AccessionNumber


def test_the_values_are_hounsfield_units_where_the_window_inverts(tmp_path):
    """Level 50, width 350: 0 is -125 HU and 255 is 225 HU, by hand; pydicom and SimpleITK read the same."""
    ds = instance(RAMP)
    assert ds.RescaleType == "HU"
    by_hand = -125 + 350 * RAMP[0].astype(float) / 255
    assert np.abs(apply_rescale(ds.pixel_array, ds) - by_hand).max() < 1e-9
    ds.save_as(tmp_path / "a.dcm")
    assert np.abs(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.dcm"))[0] - by_hand).max() < 1e-3
    shown = apply_voi_lut(apply_rescale(ds.pixel_array, ds), ds)
    low, high = shown.min(), shown.max()
    assert np.array_equal(np.round(255 * (shown - low) / (high - low)), RAMP[0])
    assert (float(ds.WindowCenter), float(ds.WindowWidth), ds.VOILUTFunction) == (50, 350, "LINEAR_EXACT")


@pytest.mark.parametrize(("level", "width"), [(-600.0, 1500.0), (40.0, 80.0), (1 / 3, 1e6 / 7), (-1234.5678, 0.1)])
def test_any_window_fits_into_decimal_strings(level, width):
    ds = instance(RAMP, {"intensity": "window", "modality": "CT", "level": level, "width": width})
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        assert len(str(ds[keyword].value)) <= 16
    expected = level - width / 2 + width / 255 * RAMP[0]
    assert np.abs(apply_rescale(ds.pixel_array, ds) - expected).max() < 1e-9 * max(abs(level), width)


@pytest.mark.parametrize(
    "recipe", [None, RECIPES.get("acdc").to_dict(), Recipe(**{**RECIPES.get("ct-liver").__dict__, "paper_compatible": True}).to_dict()]
)
def test_without_a_way_back_there_are_no_units(recipe):
    ds = instance(RAMP, recipe)
    assert "RescaleSlope" not in ds
    assert "WindowCenter" not in ds
    assert np.array_equal(ds.pixel_array, RAMP[0])


def test_a_fixed_window_of_mr_has_values_without_a_unit():
    ds = instance(RAMP, {"intensity": "window", "modality": "MR", "level": 300.0, "width": 600.0})
    assert (ds.RescaleType, float(ds.RescaleIntercept)) == ("US", 0)


def test_colour_and_odd_sizes():
    ds = instance(COLOUR)
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", 0)
    assert np.array_equal(ds.pixel_array, COLOUR.transpose(1, 2, 0))
    assert "RescaleSlope" not in ds
    odd = instance(RAMP[:, :15, :15])
    assert len(odd.PixelData) == 226
    assert np.array_equal(odd.pixel_array, RAMP[0, :15, :15])


def test_uids_are_new_valid_and_those_of_the_same_image():
    one, again, other = instance(RAMP), instance(RAMP), instance(RAMP, seed=4)
    assert one == again
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert (one.StudyInstanceUID, one.SeriesInstanceUID) == (other.StudyInstanceUID, other.SeriesInstanceUID)
    assert instance(RAMP, psi="0.5", noise="random").SeriesInstanceUID != one.SeriesInstanceUID
    assert instance(RAMP, psi="0.5", noise="random").StudyInstanceUID == one.StudyInstanceUID
    # Another machine may round a pixel differently: another image, not the same UID twice.
    assert instance(RAMP ^ np.uint8(1)).SOPInstanceUID != one.SOPInstanceUID
    for value in (one.SOPInstanceUID, one.StudyInstanceUID, one.SeriesInstanceUID):
        assert UID(value).is_valid
        assert value.startswith("2.25.")
    assert uid("a", "bc") != uid("ab", "c")


@pytest.mark.parametrize(("seed", "number"), [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, None), (2**32 - 1, None)])
def test_the_instance_number_is_the_seed_where_it_fits(seed, number):
    assert instance(RAMP, seed=seed).InstanceNumber == number


def validator() -> str:
    """dicom3tools' dciodvfy; where it is not, the test is skipped, or fails if it was asked for (Debian: apt-get install dicom3tools)."""
    asked = os.environ.get("DCIODVFY", "")
    found = shutil.which(asked or "dciodvfy")
    if not found:
        (pytest.fail if asked else pytest.skip)("no dciodvfy: apt-get install --no-install-recommends dicom3tools")
    return found


def faults(folder: Path) -> list[str]:
    """Errors and warnings of dciodvfy for `a.dcm` in a folder, but for those on an attribute that it does not know yet.

    Debian's is of June 2022; Synthetic Data (0008,001C) came into the standard later.
    """
    done = subprocess.run([validator(), "-new", "a.dcm"], cwd=folder, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "SCImage" in lines
    return [line for line in lines if line.startswith(("Error", "Warning")) and "(0008,001c)" not in line.lower()]


@pytest.mark.parametrize(("image", "recipe"), [(RAMP, LIVER), (RAMP, None), (COLOUR, None)])
def test_dciodvfy_finds_no_error(image, recipe, tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(image, marks(MODEL, seed=3, psi="1", noise="random"), about(recipe)))
    found = faults(tmp_path)
    # No error; warned of are dates, which a DICOMDIR would need, and that an empty Laterality means an unknown one, as it does.
    assert [re.search(r"\w+(?=\()", line)[0] for line in found] == ["StudyDate", "StudyTime", "Laterality"]
    assert all(line.startswith("Warning") for line in found)


def test_a_wrong_file_is_an_error_to_dciodvfy(tmp_path):
    ds = instance(RAMP)
    del ds.ConversionType
    ds.save_as(tmp_path / "a.dcm")
    assert any(line.startswith("Error") and "ConversionType" in line for line in faults(tmp_path))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    arguments = {"z_dim": 16, "c_dim": 2, "w_dim": 16, "img_resolution": 32, "img_channels": 1, "channel_base": 256, "channel_max": 8}
    folder = tmp_path_factory.mktemp("model") / "bundle"
    write_bundle(folder, Generator(**arguments), family="stylegan2", arguments=arguments, details={"recipe": LIVER})
    return folder


def medgan(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_the_pixels_of_the_pngs(bundle, tmp_path):
    for form in ("dicom", "png"):
        code, out, err = medgan("generate", "--bundle", bundle, "--out", tmp_path / form, "--format", form, "--seeds", "0-5", "--psi", 0.7)
        assert code == 0, err
        assert json.loads(out)["format"] == form
    rows = list(csv.DictReader((tmp_path / "dicom/manifest.csv").open()))
    files = sorted((tmp_path / "dicom").glob("*.dcm"))
    assert [path.name for path in files] == [row["file"] for row in rows] == [f"seed{seed:010d}.dcm" for seed in range(6)]
    read = [pydicom.dcmread(path) for path in files]
    for path, row, ds in zip(files, rows, read, strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert f"class {row['class']}" in ds.ImageComments
        assert np.array_equal(ds.pixel_array, np.asarray(Image.open(tmp_path / "png" / path.with_suffix(".png").name)))
    assert len({ds.SOPInstanceUID for ds in read}) == 6
    assert len({ds.SeriesInstanceUID for ds in read}) == len({ds.StudyInstanceUID for ds in read}) == 1
    before = {path: path.read_bytes() for path in files}
    medgan("generate", "--bundle", bundle, "--out", tmp_path / "dicom", "--format", "dicom", "--seeds", "0-5", "--psi", 0.7)
    assert {path: path.read_bytes() for path in files} == before


def test_prepare_takes_none_of_it_for_a_scan(bundle, tmp_path):
    medgan("generate", "--bundle", bundle, "--out", tmp_path / "images", "--format", "dicom", "--seeds", "0-3")
    code, _, err = medgan("prepare", tmp_path / "images", tmp_path / "data.zip", "--recipe", "ct", "--size", 32)
    assert code == 65
    assert "marked as synthetic data" in err
    assert not (tmp_path / "data.zip").exists()


@pytest.mark.parametrize("words", [("--walk",), ("--style-mix", "1,2")])
def test_a_walk_and_sheets_are_no_dicom(bundle, tmp_path, words):
    code, _, err = medgan("generate", "--bundle", bundle, "--out", tmp_path / "out", "--format", "dicom", *words)
    assert code == 2
    assert "fix: --format png, or zip" in err
    assert not (tmp_path / "out").exists()


def test_an_unwritable_target_is_one_line(bundle, tmp_path):
    (tmp_path / "file").write_text("already here")
    code, _, err = medgan("generate", "--bundle", bundle, "--out", tmp_path / "file", "--format", "dicom")
    assert code == 73
    assert err.splitlines()[-1].startswith("ERROR E_OUTPUT")
    assert (tmp_path / "file").read_text() == "already here"


def test_no_warning_of_pydicom_on_the_way(tmp_path):
    torch.manual_seed(0)
    G = Generator(16, 0, 16, 32, 1, channel_base=256, channel_max=8, mapping_layers=2).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_images(G, about(LIVER), range(2), tmp_path, form="dicom", drawing=Drawing(noise="const"))
    assert len(list(tmp_path.glob("*.dcm"))) == 2
