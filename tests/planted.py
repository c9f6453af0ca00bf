"""The command line with a failure forced in a library: `python -m tests.planted FAILURE medgan|plugin WORDS...`.

Each failure quotes what the library was called with, as libraries do. Processes that read scans import this file too, so they fail alike.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

SECRETS = {
    "name": "CANARYNAME^ANNA", "id": "CANARYID77", "birth date": "19011213", "study uid": "1.2.840.99999.1", "series uid": "1.2.840.99999.2",
    "accession": "CANARYACC", "private tag": "CANARYPRIVATE", "descrip": "CANARYDESCRIP", "file": "CANARYFILE", "folder": "CANARYFOLDER",
    "mask": "CANARYMASK", "zip member": "CANARYMEMBER", "description": "CANARYSERIES", "study date": "19020304",
}  # fmt: skip
FAILURES = ("none", "walk", "header", "nifti", "itk", "seg", "zip", "pixels", "memory", "crash", "png", "disk", "rename", "split", "json")


def _raise(error: type[Exception], number: int = 0) -> Any:
    def fail(*arguments: Any, **options: Any) -> Any:
        words = f"cannot handle {arguments} {options} of {list(SECRETS.values())}"
        raise error(number, words, SECRETS["file"]) if number else error(words)

    return fail


def force(failure: str) -> None:
    """Make one library fail."""
    if failure == "walk":
        os.walk = _raise(OSError, errno.EIO)
    elif failure == "header":
        import pydicom

        pydicom.dcmread = _raise(ValueError)
    elif failure == "nifti":
        import nibabel

        nibabel.load = _raise(ValueError)
    elif failure == "itk":
        import SimpleITK

        SimpleITK.ImageFileReader.ReadImageInformation = _raise(RuntimeError)
    elif failure == "seg":
        import highdicom

        highdicom.seg.segread = _raise(KeyError)
    elif failure == "zip":
        zipfile.ZipFile.infolist = _raise(RuntimeError)
    elif failure in ("pixels", "memory", "crash"):
        import monai.transforms.io.array as io

        def die(*arguments: Any, **options: Any) -> Any:
            if multiprocessing.parent_process() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return _raise(RuntimeError)(*arguments, **options)

        io.LoadImage.__call__ = {"pixels": _raise(RuntimeError), "memory": _raise(MemoryError), "crash": die}[failure]
    elif failure == "png":
        from PIL import Image

        Image.Image.save = _raise(KeyError)
    elif failure == "disk":
        import shutil

        shutil.disk_usage = _raise(OSError, errno.ENOSPC)
    elif failure == "rename":
        Path.replace = _raise(PermissionError, errno.EACCES)  # type: ignore[method-assign, assignment]
    elif failure == "split":
        import random

        random.Random.sample = random.Random.random = _raise(RuntimeError)  # type: ignore[method-assign]
    elif failure == "json":
        import csv

        csv.DictWriter.writerow = csv.DictWriter.writerows = _raise(RuntimeError)


force(os.environ.get("FORCED_FAILURE", "none"))

if __name__ == "__main__":
    if sys.argv[1] == "plugin":
        from plugin.container import main
    else:
        from medgan.cli import main
    sys.argv[1:2] = []
    main()
