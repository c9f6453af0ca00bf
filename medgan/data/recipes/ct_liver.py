"""Liver slices of abdominal CT, as in arXiv 2210.03786: 97 non-contrast and 108 contrast scans gave 10,600 images of 512 px."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="ct-liver",
    title="Axial CT slices that show the liver, L 50 / W 350",
    source="arXiv 2210.03786, section 2.2",
    modality="CT",
    intensity="window",
    preset="ct-liver",
    level=50.0,
    width=350.0,
    plane="axial",
    mask_label=1,
    mask_name="liver",
    min_mask_pixels=1,
    size=512,
    paper_images=10_600,
    paper_rules=("slice-range", "lose-last-slice"),
)
