"""COVID-19 Image Repository of Hannover: a table of offsets and values, and PNG files."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

#: Mean, standard deviation, decimals.
LABS = {
    "crp": (60, 30, 0),
    "d-dimer": (4, 2, 1),
    "factor_xii": (70, 20, 0),
    "ldh": (400, 90, 0),
    "lymphocytes": (1.2, 0.3, 1),
    "neutrophils": (6, 2, 1),
    "pco2": (40, 6, 0),
    "po2": (70, 15, 0),
}
HEADER = [
    *("patient_id", "image_id", "sex", "age", "size", "weight", "admission_offset"),
    *("icu_admission_offset", "icu_release_offset", "death_offset", "modality", "projection"),
    *(f"{name}_{part}" for name in LABS for part in ("offset", "val")),
]
SIDE = 24


def build(folder: Path) -> Path:
    """40 patients with 1 to 3 images: before, in and after intensive care, or never there."""
    draw = np.random.default_rng(243)
    (folder / "png").mkdir()
    rows = []
    for patient in range(40):
        key = f"{draw.integers(2**32):08x}"
        for visit in range(1 + patient % 3):
            image = f"{draw.integers(2**32):08x}"
            pixels = draw.integers(0, 256, (SIDE, SIDE + 4), np.uint8)
            Image.fromarray(pixels).save(folder / "png" / f"{image}.png")
            rows.append([key, image, *_course(patient, visit), *_values(patient, visit, draw)])
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    (folder / "readme.md").write_text("COVID-19 Image Repository\n", encoding="utf-8")
    return folder


def _course(patient: int, visit: int) -> list[object]:
    sex, admission = "fm"[patient % 2], -5 * visit
    if patient % 2:  # never in intensive care
        stay, death = ["", ""], ""
    else:  # from two days before the first image, or from the third day after it
        start = (3 if patient % 8 == 2 else -2) - 5 * visit
        stay, death = [f"{start}.0", f"{start + 9}.0"], f"{start + 9}.0" if patient % 8 == 6 else ""
        death = death if start + 9 >= 0 else ""
    inside = stay[0] != "" and float(stay[0]) <= 0 <= float(stay[1])
    view = "ap" if inside or patient % 4 == 1 else "pa"
    return [sex, "", "", "", admission, *stay, death, "CR" if view == "ap" else "DX", view]


def _values(patient: int, visit: int, draw: np.random.Generator) -> list[str]:
    if patient % 10 == 9:  # nothing measured
        return [""] * (2 * len(LABS))
    fields = []
    for name, (mean, std, decimals) in LABS.items():
        offset = draw.choice([0, 0, 0, -1, -2, -3, -4, -9, 1, 6])
        value = f"{max(round(draw.normal(mean, std), decimals), 0.0)}"
        if name in ("crp", "po2") and draw.random() < 0.1:
            value = "-inf"
        if name == "d-dimer" and draw.random() < 0.2:
            value = "inf"
        known = draw.random() < 0.7
        fields += [f"{offset}.0", value] if known else ["", ""]
    return fields
