"""Any MR: every axial slice between two percentiles of the volume, because MR has no unit."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="mr",
    title="Any MR: every axial slice, percentiles 0.5 to 99.5 of the volume's foreground",
    source="usual for MR",
    modality="MR",
    intensity="percentile",
    preset="mr",
    percentiles=(0.5, 99.5),
    size=256,
)
