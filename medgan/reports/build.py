"""A run folder in, one HTML file out: no script, no link out of the file, equal folders give equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import medgan
from medgan import runs
from medgan.errors import OutputError
from medgan.reports import merit, reproduction
from medgan.reports.citation import NOT_FOR_DIAGNOSIS, SENTENCE, citation_text, licences, references
from medgan.reports.companions import companions
from medgan.reports.dataset import data_rows
from medgan.reports.gallery import Exhibit, walk, worst_cases
from medgan.reports.limitations import ALWAYS, reasons, warnings
from medgan.reports.pack import documents
from medgan.reports.pictures import data_uri, read_sheet
from medgan.reports.prediction import basis, predictions
from medgan.reports.privacy import audit_rows
from medgan.reports.results import Results, read_results
from medgan.reports.verdict import amount, fid_text, verdict

if TYPE_CHECKING:
    from medgan.reports.figures import Figure


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is drawn once and shown in several files: curves with their PNGs, the worst cases, the walk."""

    curves: list[tuple[Figure, bytes]]
    worst: list[Exhibit]
    walk: Exhibit | None

    @property
    def files(self) -> dict[str, bytes]:
        """PNG files by name; all curves together are curves.png."""
        from medgan.reports.figures import sheet

        shown = [*self.worst, *([self.walk] if self.walk else [])]
        contents = {f"{figure.name}.png": content for figure, content in self.curves}
        if self.curves:
            contents["curves.png"] = sheet([figure for figure, _ in self.curves])
        return contents | {f"{exhibit.name}.png": exhibit.picture.png for exhibit in shown}


def build_report(
    run: Path,
    out: Path,
    *,
    include_real_examples: bool = False,
    figures: Path | None = None,
    citation: Path | None = None,
    pack: Path | None = None,
    pdf: Path | None = None,
) -> Path:
    """Write the report of a run, complete or not.

    Args:
        run: The run folder.
        out: The HTML file.
        include_real_examples: Whether the sheet of real training images is shown: such a file stays with those who may see the scans.
        figures: A folder for the figures as PNG files, or None.
        citation: A file for the citation text (CITATION.md), or None.
        pack: A folder for the reporting checklists, or None.
        pdf: A file for the same report as PDF, or None.

    Returns:
        `out`.

    Raises:
        InputError: The folder holds nothing of a run.
        OutputError: A target cannot be written.
        ConfigError: A PDF is asked for, and what makes it is not installed.
    """
    results = read_results(run)
    for path in (out, pdf):
        if path is not None and path.is_dir():
            raise OutputError("the target of the report is a folder", fix="--out FILE.html")
    for folder, name in ((out.parent, "report"), (figures, "figures"), (pack, "reporting pack"), (pdf and pdf.parent, "PDF")):
        if folder is not None:
            runs.check_writable(folder, f"the folder of the {name}")
    if pdf is not None:
        from medgan.reports.pdf import weasyprint

        weasyprint()  # What is not installed is said before the drawing.
    drawn = draw(results)
    html = render(results, drawn, include_real_examples=include_real_examples)
    runs.write_text(out, html)
    if figures is not None:
        for file, content in drawn.files.items():
            with runs.atomic(figures / file) as temporary:
                temporary.write_bytes(content)
    if citation is not None:
        runs.write_text(citation, citation_text(medgan.__version__, results))
    if pack is not None:
        for file, text in documents(results).items():
            runs.write_text(pack / file, text)
    if pdf is not None:
        from medgan.reports.pdf import write_pdf

        write_pdf(html, pdf)
    return out


def draw(results: Results) -> Drawn:
    """Everything that is a picture and not stored as one."""
    from medgan.reports.figures import figures, png

    return Drawn(curves=[(figure, png(figure)) for figure in figures(results)], worst=worst_cases(results), walk=walk(results))


def render(results: Results, drawn: Drawn, *, include_real_examples: bool = False) -> str:
    """The report as HTML text; every value of the run is escaped.

    Args:
        results: What the run folder holds.
        drawn: Its pictures.
        include_real_examples: See `build_report`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"amount": amount, "fid": fid_text}
    template = environment.from_string(files("medgan.reports").joinpath("report.html.j2").read_text(encoding="utf-8"))
    stored = reproduction.stored_seeds(results)
    return template.render(
        results=results,
        verdict=verdict(results),
        version=medgan.__version__,
        data_rows=data_rows(results),
        sheet=read_sheet(results.dataset_sheet) if include_real_examples and results.dataset_sheet else None,
        sheet_left_out=not include_real_examples and results.dataset_sheet is not None,
        figures=[(figure, data_uri(content)) for figure, content in drawn.curves],
        why_kept=merit.why_kept(results),
        evaluations=merit.evaluation_rows(results),
        synthetic=read_sheet(results.synthetic_sheet) if results.synthetic_sheet else None,
        synthetic_is_snapshot=results.synthetic_sheet is not None and results.synthetic_sheet.parent.name == runs.SNAPSHOTS,
        seed_range=stored.get("seeds", ""),
        psis=sorted({row["psi"] for row in results.samples if row.get("psi")}),
        worst=drawn.worst,
        walk=drawn.walk,
        metrics=merit.metric_rows(results),
        variety=merit.variety_rows(results),
        companions=companions(results),
        metric_facts=merit.metric_facts(results),
        predictions=predictions(results),
        basis=basis(results),
        audit=results.audit,
        audit_rows=audit_rows(results.audit),
        warnings=warnings(results),
        reasons=reasons(results),
        limits=ALWAYS,
        container=reproduction.container_line(results),
        commands=reproduction.commands(results),
        facts=reproduction.machine_facts(results),
        checksums=reproduction.checksums(results),
        settings=reproduction.training_settings(results.config),
        references=references(results),
        licences=licences(results),
        sentence=SENTENCE.format(version=medgan.__version__),
        not_for_diagnosis=NOT_FOR_DIAGNOSIS,
    )
