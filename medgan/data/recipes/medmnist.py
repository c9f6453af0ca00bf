"""Any other set of MedMNIST (https://medmnist.com) or an .npz of that form, at any size; colour stays colour."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="medmnist",
    title="Any .npz of MedMNIST, at any size, classes by number",
    source="https://doi.org/10.1038/s41597-022-01721-8",
    sources=("stack",),
    intensity="stored",
    preset="png",
    plane="stored",
    min_foreground=0.0,
    colour="keep",
    fit="pad",
    size=0,
)
