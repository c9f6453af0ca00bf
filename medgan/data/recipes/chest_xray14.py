"""ChestX-ray14 (https://nihcc.app.box.com/v/ChestXray-NIHCC): `images_001/images/00000001_000.png` and `Data_Entry_2017*.csv`.

Some of the PNGs are RGBA with three equal channels.
"""

from medgan.data.recipe import Recipe

RECIPE = Recipe(
    name="chest-xray14",
    title="ChestX-ray14: frontal chest X-rays as published, in grey",
    source="arXiv 2210.03786, section 2.2",
    sources=("picture",),
    files=("[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]_[0-9][0-9][0-9].png",),
    patient=r"^(\d{8})_\d{3}",
    table=("data_entry_2017*.csv", "Image Index", "Finding Labels", "Patient ID"),
    classes=(
        "No Finding", "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
        "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
    ),
    intensity="stored",
    preset="png",
    plane="stored",
    min_foreground=0.0,
    colour="grey",
    size=1024,
    paper_images=112_120,
)  # fmt: skip
