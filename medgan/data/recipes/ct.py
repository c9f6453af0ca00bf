"""Any CT: every axial slice in the soft tissue window; --window-preset takes another."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="ct",
    title="Any CT: every axial slice, L 40 / W 400",
    source="usual soft tissue window",
    modality="CT",
    preset="ct-soft",
    level=40.0,
    width=400.0,
    size=512,
)
