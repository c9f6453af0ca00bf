"""Scan keys: what stands in files and messages instead of names, IDs and UIDs.

A key is an HMAC-SHA-256 of the identity under a secret that is never written anywhere. With the same key file a scan has
the same key in every run, so that a hospital can find it again; without one, each run draws a secret and forgets it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from medgan.errors import ConfigError

# 64 bits: two of 100,000 scans share a key with probability 3e-10.
DIGITS = 16
MINIMUM_BYTES = 16

# Words of which the name of a segment may be made to be shown; any other word may be somebody's name.
ANATOMY = frozenset(
    """
    abdomen adrenal airway aorta artery atrium background bladder blood body bone bowel brain brainstem breast cardiac carotid cartilage caudate
    caval cava cavity cerebellum cerebrum colon cord core cortex cyst duct duodenum edema endocardium enhancing epicardium esophagus external eye
    fat femur fluid gallbladder gland glottis grey gray heart hepatic hip humerus iliac inferior kidney larynx left lens lesion liver lobe lower lung
    lymph mandible mask matter medulla metastasis middle muscle myocardium necrosis nerve node nodule optic organ pancreas parotid pelvis portal
    prostate pulmonary rectum renal rib right sacrum scapula skin skull spinal spine spleen splenic sternum stomach superior thyroid tissue trachea
    tumor tumour upper ureter uterus vein ventricle vertebra vertebrae vessel volume wall white
""".split()  # noqa: SIM905  a page of words is read more easily so
)


def shown_names(names: Iterable[str]) -> list[str]:
    """Names of segments that may stand in a message: those made of words of anatomy and numbers; of others, only how many there are."""
    every = set(names)
    fine = sorted(
        name
        for name in every
        if name and all(word in ANATOMY or len(word) == 1 or (word.isdigit() and len(word) < 3) for word in name.split())
    )
    return fine + ([f"{len(every) - len(fine)} other names"] if len(every) > len(fine) else [])


class Pseudonyms:
    """Keys under one secret; kinds keep a patient and a series with the same identity apart."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key(self, kind: str, identity: str) -> str:
        """The key of an identity: 16 hexadecimal digits.

        Args:
            kind: `subject`, `session`, `series` or `file`.
            identity: What identifies it at home, e.g. the PatientID.
        """
        message = f"{kind}\0{identity}".encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:DIGITS]


def pseudonyms_from(path: str) -> Pseudonyms:
    """Keys under the secret in a file, or under a fresh one where no file is named.

    Raises:
        ConfigError: The file cannot be read or is too short to be a secret.
    """
    if not path:
        return Pseudonyms(os.urandom(32))
    fix = "a file made with: head -c 32 /dev/urandom > key"
    try:
        secret = Path(path).read_bytes()
    except OSError:
        raise ConfigError("--pseudonym-key is not a readable file", fix=fix) from None
    if len(secret) < MINIMUM_BYTES:
        raise ConfigError(f"--pseudonym-key holds {len(secret)} bytes, a secret needs {MINIMUM_BYTES}", fix=fix)
    return Pseudonyms(secret)
