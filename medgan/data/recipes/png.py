"""Any grey pictures as they are stored: PNG, JPEG or TIFF, 16 bits scaled by 65535."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="png",
    title="Any grey pictures (PNG, JPEG, TIFF) as stored; 16 bits scaled, not cut",
    source="as stored",
    sources=("picture",),
    intensity="stored",
    preset="png",
    plane="stored",
    size=512,
)
