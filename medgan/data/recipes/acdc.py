"""ACDC, cine MR of 100 hearts (https://www.creatis.insa-lyon.fr/Challenge/acdc): `patient001/patient001_4d.nii.gz` and `Info.cfg`.

End-diastole and end-systole are taken, from the files of single frames where they lie beside and else out of the 4-D file.
"""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="acdc",
    title="ACDC: all slices at end-diastole and end-systole, whole range of each volume, padded",
    source="arXiv 2210.03786, section 2.2",
    modality="MR",
    sources=("volume",),
    files=("patient*_4d.nii*", "patient*_frame[0-9][0-9].nii*"),
    frames="ed-es",
    patient=r"^patient(\d+)",
    classes=("ED", "ES"),
    intensity="minmax",
    preset="mr-minmax",
    # The short axis is no plane of the body: turned to the nearest one, some hearts would lie across.
    plane="stored",
    min_foreground=0.0,
    fit="pad",
    size=512,
    paper_images=1902,
    paper_rules=("slice-range",),
)
