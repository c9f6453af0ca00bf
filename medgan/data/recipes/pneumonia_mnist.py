"""PneumoniaMNIST of MedMNIST v2 (https://medmnist.com): children's chest X-rays, `pneumoniamnist.npz` or `pneumoniamnist_128.npz`."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="pneumonia-mnist",
    title="PneumoniaMNIST: chest X-rays of children, normal or pneumonia",
    source="arXiv 2308.02505",
    sources=("stack",),
    files=("pneumoniamnist*.npz",),
    classes=("normal", "pneumonia"),
    intensity="stored",
    preset="png",
    plane="stored",
    min_foreground=0.0,
    fit="pad",
    size=0,
)
