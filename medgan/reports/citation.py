"""Whom to cite for results made with medgan, and under which terms they may be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medgan.reports.results import Results
from medgan.weights import KNOWN


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One work: what it is cited for, and its bibliographic line."""

    reason: str
    text: str


# Names and titles as on the title pages; arXiv numbers instead of links, because the report carries no remote link.
REFERENCES = (
    Reference(
        reason="The study this tool reproduces",
        text=(
            "M. Woodland, J. Wood, B. M. Anderson, S. Kundu, E. Lin, E. Koay, B. Odisio, C. Chung, H. C. Kang, A. M. Venkatesan, "
            "S. Yedururi, B. De, Y.-M. Lin, A. B. Patel, K. K. Brock. Evaluating the Performance of StyleGAN2-ADA on Medical Images. "
            "In: Simulation and Synthesis in Medical Imaging (SASHIMI 2022), LNCS 13570, pp. 142-153. arXiv:2210.03786, "
            "doi:10.1007/978-3-031-16980-9_14."
        ),
    ),
    Reference(
        reason="Diversity and quality against sample size",
        text=(
            "M. M. Saad, M. H. Rehmani, R. O'Reilly. Assessing Intra-class Diversity and Quality of Synthetically Generated Images in a "
            "Biomedical and Non-biomedical Setting. 2023. arXiv:2308.02505."
        ),
    ),
    Reference(
        reason="StyleGAN2-ADA: the network's training with few images",
        text=(
            "T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila. Training Generative Adversarial Networks with Limited "
            "Data. In: Advances in Neural Information Processing Systems 33 (NeurIPS 2020). arXiv:2006.06676."
        ),
    ),
    Reference(
        reason="MONAI: reading of scans, transforms, bundle format",
        text=(
            "M. J. Cardoso, W. Li, R. Brown, N. Ma, E. Kerfoot, et al. MONAI: An open-source framework for deep learning in healthcare. "
            "2022. arXiv:2211.02701."
        ),
    ),
    Reference(
        reason="FID: the Fréchet Inception Distance",
        text=(
            "M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter. GANs Trained by a Two Time-Scale Update Rule Converge to a "
            "Local Nash Equilibrium. In: Advances in Neural Information Processing Systems 30 (NIPS 2017). arXiv:1706.08500."
        ),
    ),
)

FROM_FFHQ = Reference(
    reason="FFHQ: the photographs that the first weights were trained on",
    text=(
        "T. Karras, S. Laine, T. Aila. A Style-Based Generator Architecture for Generative Adversarial Networks. In: IEEE/CVF Conference on "
        "Computer Vision and Pattern Recognition (CVPR 2019). arXiv:1812.04948."
    ),
)

SENTENCE = "Synthetic images were made with medgan {version}, a StyleGAN2-ADA implementation in PyTorch and MONAI that follows Woodland et al. (2022)."

NOT_FOR_DIAGNOSIS = (
    "Synthetic images show no patient and are not for diagnostic use. They may repeat errors, gaps and, in rare cases, details of the "
    "scans they were learned from."
)


def references(results: Results | None = None) -> tuple[Reference, ...]:
    """The works to cite; with FFHQ where the training began with NVIDIA's networks."""
    return (*REFERENCES, FROM_FFHQ) if results and "NVIDIA" in str(results.source.get("licence", "")) else REFERENCES


def licences(results: Results) -> list[tuple[str, str]]:
    """(what, under which terms): the code, the scans, the first weights, the networks that measured. Nothing is said of what is not known."""
    rows = [
        ("medgan, the code", "Apache-2.0."),
        ("The scans", "Their own terms, which also bind the generator and the images learned from them. They are not recorded here."),
    ]
    if results.source:
        licence = results.source.get("licence")
        digest = str(results.source.get("sha256", ""))
        said = f"{licence}; what was trained from them is bound by it too." if licence else "Not recorded: ask whoever made them."
        rows.append((f"The first weights ({results.source.get('kind', 'a network file')}, SHA-256 {digest[:12]})", said))
    extractors = [results.metrics.get("extractor"), *_others(results.metrics.get("other_extractors")), results.audit.get("features")]
    names = dict.fromkeys(str(entry.get("name")) for entry in extractors if isinstance(entry, Mapping))
    rows += [(f"{name}, which measured", f"{KNOWN[name].licence}.") for name in names if name in KNOWN]
    return rows


def _others(found: Any) -> list[dict[str, str]]:
    return [{"name": str(name)} for name in found] if isinstance(found, Mapping) else []


def citation_text(version: str, results: Results | None = None) -> str:
    """CITATION.md: a sentence for the methods section, the works to cite, and the terms of use.

    Args:
        version: The medgan version that made the results.
        results: The run, for what is its own.
    """
    lines = ["# How to cite", "", "For the methods section:", "", f"> {SENTENCE.format(version=version)}", "", "## Works", ""]
    lines += [f"- {reference.reason}: {reference.text}" for reference in references(results)]
    lines += [
        "",
        "## Terms",
        "",
        "- medgan is licensed under Apache-2.0. The terms of the scans a model was trained on also bind what is made from it.",
        f"- {NOT_FOR_DIAGNOSIS}",
        *(f"- {what}: {terms}" for what, terms in (licences(results)[2:] if results else [])),
        "",
    ]
    return "\n".join(lines)
