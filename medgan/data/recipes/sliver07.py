"""SLIVER07, the 20 CTs of a liver segmentation challenge (https://sliver07.grand-challenge.org): `liver-orig001.mhd` with `.raw`.

arXiv 2210.03786 takes each axial slice "without any further preprocessing" and does not state the mapping to 8 bits: assumed is the
whole range of the volume.
"""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="sliver07",
    title="SLIVER07: every axial slice of 20 abdominal CTs, whole range of each volume",
    source="arXiv 2210.03786, section 2.2",
    modality="CT",
    sources=("volume",),
    files=("liver-orig*",),
    patient=r"^liver-(?:orig|seg)(\d+)",
    intensity="minmax",
    preset="minmax",
    min_foreground=0.0,
    size=512,
    paper_images=4159,
    paper_rules=("slice-range",),
)
