"""Scans in, dataset out. RECIPES names what is done to the scans of a data set."""

from medgan.registry import Registry

RECIPES = Registry(
    "recipe",
    {
        "ct-liver": "medgan.data.recipes.ct_liver:RECIPE",
        "sliver07": "medgan.data.recipes.sliver07:RECIPE",
        "chest-xray14": "medgan.data.recipes.chest_xray14:RECIPE",
        "acdc": "medgan.data.recipes.acdc:RECIPE",
        "msd-brain": "medgan.data.recipes.msd_brain:RECIPE",
        "pneumonia-mnist": "medgan.data.recipes.pneumonia_mnist:RECIPE",
        "oct-mnist": "medgan.data.recipes.oct_mnist:RECIPE",
        "fashion-mnist": "medgan.data.recipes.fashion_mnist:RECIPE",
        "medmnist": "medgan.data.recipes.medmnist:RECIPE",
        "ct": "medgan.data.recipes.ct:RECIPE",
        "mr": "medgan.data.recipes.mr:RECIPE",
        "xray": "medgan.data.recipes.xray:RECIPE",
        "png": "medgan.data.recipes.png:RECIPE",
    },
    group="medgan.recipes",
)
