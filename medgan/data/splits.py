"""Training and held-out patients: a patient is on one side only, or the privacy audit and FID would flatter the network."""

from __future__ import annotations

import random
from collections.abc import Sequence

FEWEST_PATIENTS = 10


def held_out_patients(patients: Sequence[str], *, share: float, seed: int) -> tuple[set[str], str]:
    """Which patients are held out.

    Args:
        patients: All patients, each once, in an order that does not depend on pseudonyms or folder names.
        share: Share of the patients to hold out, 0 to below 1; rounded to whole patients, at least one.
        seed: Seed of the draw.

    Returns:
        The held-out patients, and a note where the share could not be honoured ("" otherwise).
    """
    if len(set(patients)) != len(patients):
        raise ValueError("a patient is listed twice")
    if share == 0:
        return set(), ""
    if len(patients) < FEWEST_PATIENTS:
        count = f"{len(patients)} patient{'s' if len(patients) != 1 else ''}"
        return set(), f"nothing is held out: {count}, and a split needs {FEWEST_PATIENTS}"
    count_out = min(max(1, round(share * len(patients))), len(patients) - 1)
    return set(random.Random(seed).sample(list(patients), count_out)), ""  # noqa: S311  a draw, not a secret
