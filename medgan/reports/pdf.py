"""The report as PDF, by WeasyPrint (the extra `pdf`): the same HTML under its print rules, tagged for screen readers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medgan.errors import ConfigError, OutputError
from medgan.runs import atomic

# Fixed, so that equal reports are equal files.
IDENTIFIER = b"medgan report"


def weasyprint() -> Any:
    """WeasyPrint.

    Raises:
        ConfigError: It, or the system's Pango that it draws text with, is not here.
    """
    from PIL import ImageFile

    # Its notes about CSS that only browsers know are nothing a user can act on.
    for name in ("weasyprint", "fontTools"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    strict = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
    except ImportError:
        raise ConfigError("--pdf needs the extra `pdf`", fix="pip install 'medgan[pdf]', or print report.html from a browser") from None
    except OSError:
        raise ConfigError(
            "--pdf: WeasyPrint finds no Pango on this system",
            fix="apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or print report.html from a browser",
        ) from None
    finally:
        # Its import makes Pillow take half a picture for a whole one, everywhere in the process.
        ImageFile.LOAD_TRUNCATED_IMAGES = strict
    return weasyprint


def write_pdf(html: str, out: Path) -> None:
    """Write the report of `html` as PDF, atomically; nothing is loaded from anywhere.

    Raises:
        ConfigError: See `weasyprint`.
        OutputError: WeasyPrint failed.
    """
    library = weasyprint()
    with atomic(out) as temporary, temporary.open("wb") as file:
        try:
            library.HTML(string=html, url_fetcher=_data_only()).write_pdf(file, pdf_variant="pdf/ua-1", pdf_identifier=IDENTIFIER)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise OutputError(f"the PDF could not be made ({type(error).__name__})", fix="print report.html from a browser") from error


def _data_only() -> Any:
    """A fetcher that knows data: only, where the pictures are."""
    from weasyprint.urls import URLFetcher

    return URLFetcher(allowed_protocols={"data"})
