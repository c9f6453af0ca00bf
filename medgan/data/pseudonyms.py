"""Scan keys: what stands in files and messages instead of names, IDs and UIDs.

A key is an HMAC-SHA-256 of the identity under a secret that is never written anywhere. With the same key file a scan has
the same key in every run, so that a hospital can find it again; without one, each run draws a secret and forgets it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from medgan.errors import ConfigError

# 64 bits: two of 100,000 scans share a key with probability 3e-10.
DIGITS = 16
MINIMUM_BYTES = 16


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
