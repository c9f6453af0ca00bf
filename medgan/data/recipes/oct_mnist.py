"""OCTMNIST of MedMNIST v2 (https://medmnist.com): optical coherence tomography of the retina, `octmnist.npz` or `octmnist_128.npz`."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="oct-mnist",
    title="OCTMNIST: retinal OCT with CNV, DME, drusen, or normal",
    source="arXiv 2308.02505",
    sources=("stack",),
    files=("octmnist*.npz",),
    # Choroidal neovascularisation, diabetic macular oedema.
    classes=("CNV", "DME", "drusen", "normal"),
    intensity="stored",
    preset="png",
    plane="stored",
    min_foreground=0.0,
    fit="pad",
    size=0,
)
