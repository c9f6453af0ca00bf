"""Task01_BrainTumour of the Medical Segmentation Decathlon (http://medicaldecathlon.com): `imagesTr/BRATS_001.nii.gz`, `imagesTs/...`.

Four co-registered MR channels in a 4-D file: FLAIR, T1, T1 with gadolinium, T2. The third is taken, number 2 from 0.
"""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="msd-brain",
    title="MSD Task01: axial slices of T1 with gadolinium, whole range of each volume, padded",
    source="arXiv 2210.03786, section 2.2",
    modality="MR",
    sources=("volume",),
    files=("brats_*.nii*",),
    frames="2",
    patient=r"^brats_(\d+)",
    intensity="minmax",
    preset="mr-minmax",
    min_foreground=0.0,
    fit="pad",
    size=256,
    paper_images=103_030,
    paper_rules=("slice-range",),
)
