"""Reading without a word: DICOM and NIfTI libraries quote header values and paths in warnings, and those may name a patient."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warning and no log record leaves this block; errors are the caller's to catch.

    All logging is off inside: a list of talkative libraries would miss the loggers of their modules and plugins.
    """
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
