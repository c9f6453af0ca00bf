"""Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist): `train-images-idx3-ubyte.gz` and labels; clothes, the control of the second paper."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="fashion-mnist",
    title="Fashion-MNIST: ten kinds of clothes",
    source="arXiv 2308.02505",
    sources=("stack",),
    files=("*-ubyte", "*-ubyte.gz", "fashion*.npz"),
    classes=("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    intensity="stored",
    preset="png",
    plane="stored",
    min_foreground=0.0,
    fit="pad",
    size=0,
)
