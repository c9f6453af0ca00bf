"""Small data sets in the folders, names and formats in which the real ones are published."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from tests.phantoms import affine_for, body, ct_nifti, ct_series, dicom_slice, save, turned, write_nifti


def ct_liver(folder: Path) -> Path:
    ct_nifti(folder / "patient1")
    ct_nifti(folder / "patient2", shift=1)
    return folder


def sliver07(folder: Path, patients: int = 2) -> Path:
    """`training/liver-orig001.mhd` + `.raw` and `liver-seg001.mhd`, as the challenge unpacks."""
    place = folder / "training"
    place.mkdir(parents=True)
    for number in range(1, patients + 1):
        hu, liver = body(shift=number)
        for kind, values in (("orig", hu.astype(np.int16)), ("seg", liver)):
            image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0))
            image.SetSpacing((1.0, 1.0, 2.0))
            SimpleITK.WriteImage(image, str(place / f"liver-{kind}{number:03d}.mhd"))
    return folder


def heart(shape: tuple[int, int, int] = (20, 24, 5), frames: int = 6, *, patient: int = 1) -> np.ndarray:
    """A ring that contracts, (x, y, slice, frame), different in every slice, frame and patient."""
    x, y, z, t = np.meshgrid(*[np.arange(n) for n in (*shape, frames)], indexing="ij")
    radius = np.hypot(x - shape[0] / 2, y - shape[1] / 2)
    inner = 3.0 + np.cos(t)
    return np.where(np.abs(radius - inner) < 1.5, 300 + 10 * z, 40 + z) + 2 * t + 9 * patient * (y == 0)


def acdc(folder: Path, patients: int = 2, *, single_frames: bool = True) -> Path:
    """`patient001/patient001_4d.nii.gz`, Info.cfg, and (beside) the files of single frames with their label maps."""
    for number in range(1, patients + 1):
        name = f"patient{number:03d}"
        values = heart(patient=number)
        affine = affine_for("LPS", values.shape, (1.5, 1.5, 8.0))
        write_nifti(folder / name / f"{name}_4d.nii.gz", values, affine)
        (folder / name / "Info.cfg").write_text("ED: 1\nES: 4\nGroup: DCM\nHeight: 184.0\nNbFrame: 6\nWeight: 95.0\n")
        for frame in (1, 4) if single_frames else ():
            write_nifti(folder / name / f"{name}_frame{frame:02d}.nii.gz", values[..., frame - 1], affine)
            labels = (values[..., frame - 1] > 200).astype(np.uint8) * 2
            write_nifti(folder / name / f"{name}_frame{frame:02d}_gt.nii.gz", labels, affine, dtype=np.uint8)
    return folder


def brain(patient: int) -> np.ndarray:
    """Four channels, (x, y, z, channel): an ellipsoid of another brightness in each, nothing in the first and last slice."""
    shape = (24, 24, 6)
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    inside = ((x - 11.5) / 10) ** 2 + ((y - 11.5) / 11) ** 2 + ((z - 2.5) / 2.4) ** 2 < 1
    values = np.stack([inside * (100 * (channel + 1) + 5 * x + 3 * y + patient) for channel in range(4)], axis=-1)
    values[12:15, 5:8, 2:4, 2] = 900
    return values


def msd_brain(folder: Path, patients: int = 2) -> Path:
    """`Task01_BrainTumour/imagesTr/BRATS_001.nii.gz`, `imagesTs`, `labelsTr`, and the resource forks of the published tar."""
    task = folder / "Task01_BrainTumour"
    for number in range(1, patients + 2):
        part = "imagesTr" if number <= patients else "imagesTs"
        values = brain(number)
        affine = affine_for("LAS", values.shape, (1.0, 1.0, 1.0))
        write_nifti(task / part / f"BRATS_{number:03d}.nii.gz", values, affine, dtype=np.float32)
        (task / part / f"._BRATS_{number:03d}.nii.gz").write_bytes(b"\0\5\x16\7" + b"\0" * 60)
        if part == "imagesTr":
            labels = (values[..., 2] == 900).astype(np.uint8) * 3
            write_nifti(task / "labelsTr" / f"BRATS_{number:03d}.nii.gz", labels, affine, dtype=np.uint8)
    (task / "dataset.json").write_text("{}")
    return folder


def chest_xray14(folder: Path) -> Path:
    """`images_001/images/00000001_000.png` ..., one of them RGBA, and `Data_Entry_2017_v2020.csv`."""
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    findings = ["Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", "Hernia"]
    for index, (patient, follow_up) in enumerate([(1, 0), (1, 1), (2, 0), (13, 0)]):
        picture = xray(index)
        name = f"{patient:08d}_{follow_up:03d}.png"
        place = folder / f"images_{index // 2 + 1:03d}" / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(picture)
        (image.convert("RGBA") if index == 2 else image).save(place)
        rows.append(f"{name},{findings[index]},{follow_up},{patient},58,M,PA")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    return folder


def xray(seed: int, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    """A bright middle, two dark lungs and a heart on the right of the picture, uint8."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    values = 190.0 - 60 * ((np.abs(x - 0.3) < 0.12) | (np.abs(x - 0.7) < 0.12)) + 30 * (np.hypot(x - 0.6, y - 0.6) < 0.12)
    return np.clip(values + 20 * y + seed, 0, 250).astype(np.uint8)


def medmnist(path: Path, *, classes: int = 2, size: int = 28, counts: tuple[int, int, int] = (12, 4, 6), channels: int = 0) -> Path:
    """An .npz with `train_images`, `train_labels`, ...: labels go round, each image differs."""
    arrays = {}
    for part, (name, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        pictures = np.stack([xray(3 * i + part, (size, size)) for i in range(count)])
        if channels:
            pictures = np.stack([pictures, 255 - pictures, pictures // 2], axis=-1)
        arrays |= {f"{name}_images": pictures, f"{name}_labels": (np.arange(count) % classes).astype(np.uint8)[:, None]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def fashion_mnist(folder: Path, *, packed: bool = True) -> Path:
    """The four idx files, big-endian, gzipped as published."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", 20, 0), ("t10k", 10, 1)):
        pictures = np.stack([xray(2 * i + seed, (28, 28)) for i in range(count)])
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = b"\0\0\x08\x03" + np.array(pictures.shape, ">i4").tobytes() + pictures.tobytes()
        for kind, content in (
            ("images-idx3", images),
            ("labels-idx1", b"\0\0\x08\x01" + np.array([count], ">i4").tobytes() + labels.tobytes()),
        ):
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return folder


def ct(folder: Path) -> Path:
    hu, _ = body()
    ct_series(folder / "a", hu)
    return folder


def mr(folder: Path) -> Path:
    hu, _ = body()
    ct_series(folder / "a", np.clip(hu + 1000, 0, None), intercept=0, Modality="MR")
    hu, _ = body(shift=7)
    write_nifti(folder / "b" / "t1.nii.gz", turned(np.clip(hu + 1000, 0, None), "RAS"), affine_for("RAS", hu.shape))
    return folder


def xrays(folder: Path) -> Path:
    """A DICOM whose low values are white, and a JPEG."""
    picture = xray(3).astype(np.uint16) * 16
    fields = {
        "Modality": "DX", "PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11, "ImageType": ["DERIVED", "PRIMARY"],
        "ImagePositionPatient": None, "ImageOrientationPatient": None, "WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
    }  # fmt: skip
    save(dicom_slice((4095 - picture).astype(np.uint16), (0, 0, 0), **fields), folder / "P1" / "x1")
    (folder / "P2").mkdir()
    Image.fromarray(xray(9)).save(folder / "P2" / "x2.jpg", quality=95)
    return folder


def pngs(folder: Path) -> Path:
    """Patients with a picture of 8 and one of 16 bits."""
    for number in (1, 2):
        (folder / f"p{number}").mkdir(parents=True)
        Image.fromarray(xray(number)).save(folder / f"p{number}" / "a.png")
        Image.fromarray(xray(number + 10).astype(np.uint16) * 257).save(folder / f"p{number}" / "b.png")
    return folder


# What each recipe finds in its layout: builder, training and held-out images together, at `--held-out 0.1`.
LAYOUTS = {
    "ct-liver": (ct_liver, 16),
    "sliver07": (sliver07, 24),
    "chest-xray14": (chest_xray14, 4),
    "acdc": (acdc, 20),
    "msd-brain": (msd_brain, 12),
    "pneumonia-mnist": (lambda folder: medmnist(folder / "pneumoniamnist.npz").parent, 18),
    "oct-mnist": (lambda folder: medmnist(folder / "octmnist.npz", classes=4).parent, 18),
    "fashion-mnist": (fashion_mnist, 30),
    "medmnist": (lambda folder: medmnist(folder / "bloodmnist.npz", classes=8, channels=3).parent, 18),
    "ct": (ct, 12),
    "mr": (mr, 24),
    "xray": (xrays, 2),
    "png": (pngs, 4),
}
