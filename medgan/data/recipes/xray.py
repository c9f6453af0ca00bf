"""Any X-ray: DICOM as its header wants it shown (PS3.4 N.2), or pictures as they are stored."""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="xray",
    title="Any X-ray: DICOM as its header wants it shown, or pictures as stored",
    source="DICOM PS3.4 N.2",
    modality="CR|DX|RG|MG|IO|PX",
    sources=("series", "picture"),
    # Nearly every digital X-ray for presentation is marked as derived.
    original=False,
    intensity="display",
    preset="xray",
    plane="stored",
    colour="grey",
    size=512,
)
