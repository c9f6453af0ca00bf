"""TensorBoard event files, written without TensorBoard: a line of statistics becomes one event of scalars at the images shown so far.

The format is TFRecord (length, its checksum, data, its checksum; little endian, CRC-32C masked as TensorFlow documents it) around the protocol
buffer `Event` of event.proto: wall_time = 1, step = 2, file_version = 3, summary = 5; in it value = 1 with tag = 1 and simple_value = 2.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgan import runs

EVENTS = "events.out.tfevents.medgan"
"""Name of the file in a run folder; TensorBoard knows it by its middle."""

_VERSION = b"brain.Event:2"
_MASK = 0xA282EAD8


def _table() -> list[int]:
    """CRC-32C (Castagnoli) of every byte, reflected polynomial 0x82F63B78."""
    found = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        found.append(crc)
    return found


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C of RFC 3720: `123456789` has 0xE3069283."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    """The checksum as a record holds it: turned right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    """Data as one TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _bytes(field: int, data: bytes) -> bytes:
    """A field of length-delimited data."""
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def event(step: int, values: Mapping[str, float], *, at: float) -> bytes:
    """The data of an event.

    Args:
        step: Images shown.
        values: Scalars by tag.
        at: Seconds since 1970.
    """
    summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items())
    return b"\x09" + struct.pack("<d", at) + b"\x10" + _varint(step) + _bytes(5, summary)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line of stats.jsonl (means of what has moments) or of metrics.jsonl, by the names that they have there."""
    found = {}
    for name, value in row.get("metrics", row).items():
        if isinstance(value, Mapping):
            value = value.get("mean", value.get("value"))
        if name not in ("tick", "kimg", "nimg") and isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def append(folder: Path, step: int, row: Mapping[str, Any]) -> None:
    """Add a line's figures to the event file of a run folder, which is made where there is none."""
    with (folder / EVENTS).open("ab") as file:
        if not file.tell():
            file.write(_first(time.time()))
        file.write(record(event(step, scalars(row), at=time.time())))


def rewrite(folder: Path) -> None:
    """Make the event file of a run folder anew from its stats.jsonl and metrics.jsonl, as a run that goes on finds them.

    What a kill tore and what will come again is gone then. Times are those of training alone, up to now.
    """
    stats = runs.read_json_lines(folder / runs.STATS)
    seconds = {row["kimg"]: row["seconds"] for row in stats}
    start = time.time() - max(seconds.values(), default=0.0)
    rows = sorted([*stats, *runs.read_json_lines(folder / runs.EVALUATIONS)], key=lambda row: row["kimg"])
    found = [record(event(round(row["kimg"] * 1000), scalars(row), at=start + seconds.get(row["kimg"], 0.0))) for row in rows]
    runs.write_bytes(folder / EVENTS, _first(start) + b"".join(found))


def _first(at: float) -> bytes:
    """What every event file begins with."""
    return record(b"\x09" + struct.pack("<d", at) + _bytes(3, _VERSION))
