"""Scans in, dataset out. RECIPES names what is done to the scans of a data set."""

from medgan.registry import Registry

RECIPES = Registry(
    "recipe",
    {
        "ct-liver": "medgan.data.recipes.ct_liver:RECIPE",
    },
    group="medgan.recipes",
)
