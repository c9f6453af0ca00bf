"""A real archive takes synthetic DICOM and gives it back as it was."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import torch

from medgan.data import RECIPES
from medgan.networks.stylegan2 import Generator
from medgan.sampling.generate import write_images
from tests.plugin.orthanc import Orthanc

METADATA = {"medgan": {"model_sha256": "ab" * 32, "family": "stylegan2", "recipe": RECIPES.get("ct-liver").to_dict()}}


def test_orthanc_takes_a_series_once_and_gives_it_back(tmp_path):
    torch.manual_seed(0)
    G = Generator(16, 0, 16, 32, 1, channel_base=256, channel_max=8, mapping_layers=2).eval()
    write_images(G, METADATA, range(3), tmp_path / "images", form="dicom")
    files = sorted((tmp_path / "images").glob("*.dcm"))
    with Orthanc(tmp_path / "orthanc") as orthanc:
        # Sent twice: the same instances, as their UIDs say.
        orthanc.store(files)
        orthanc.store(files)
        (series,) = orthanc.session.get(f"{orthanc.url}/series", params={"includefield": "all"}, timeout=20).json()
        study, number = series["0020000D"]["Value"][0], series["0020000E"]["Value"][0]
        place = f"{orthanc.url}/studies/{study}/series/{number}"
        rows = orthanc.session.get(f"{place}/metadata", headers={"Accept": "application/dicom+json"}, timeout=20).json()
        assert [row["0008001C"]["Value"] for row in rows] == [["YES"]] * 3
        assert {row["00280301"]["Value"][0] for row in rows} == {"NO"}
        assert {row["00281054"]["Value"][0] for row in rows} == {"HU"}
        found = {}
        for identifier in orthanc.session.get(f"{orthanc.site}/instances", timeout=20).json():
            content = orthanc.session.get(f"{orthanc.site}/instances/{identifier}/file", timeout=20).content
            found[pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID] = content
        sent = {pydicom.dcmread(path).SOPInstanceUID: path.read_bytes() for path in files}
        assert found == sent
        # Decoded by the archive itself.
        first = orthanc.session.get(f"{orthanc.site}/instances", timeout=20).json()[0]
        picture = orthanc.session.get(f"{orthanc.site}/instances/{first}/numpy", params={"rescale": "false"}, timeout=20).content
        tags = orthanc.session.get(f"{orthanc.site}/instances/{first}/simplified-tags", timeout=20).json()
        ours = pydicom.dcmread(io.BytesIO(sent[tags["SOPInstanceUID"]])).pixel_array
        assert np.array_equal(np.squeeze(np.load(io.BytesIO(picture))), ours)
