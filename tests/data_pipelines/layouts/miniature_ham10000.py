"""HAM10000: two folders of images, masks, the table; lesions with several images."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
PLACES = ("back", "face", "trunk", "unknown")


def build(folder: Path) -> Path:
    """70 lesions with 1 or 2 images, gaps in sex, age and localisation, one image not fetched."""
    draw = np.random.default_rng(10)
    rows = [["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]]
    for place in ("images_part_1", "images_part_2", "segmentations_lesion_tschandl"):
        (folder / f"HAM10000_{place}").mkdir(parents=True)
    number = 24306
    for lesion in range(70):
        sex = draw.choice(["male", "female", "unknown"], p=[0.5, 0.4, 0.1])
        age = draw.choice(["45.0", "60.0", "0.0", ""])
        where = draw.choice(PLACES)
        for _ in range(1 + lesion % 2):
            name = f"ISIC_{number:07d}"
            number += 1
            code = CODES[lesion % len(CODES)]
            rows.append([f"HAM_{lesion:07d}", name, code, "histo", age, sex, where])
            if lesion < 69 or number % 2:
                part = "images_part_1" if lesion < 40 else "images_part_2"
                _write(folder, part, name, draw)
    with (folder / "HAM10000_metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder


def _write(folder: Path, part: str, name: str, draw: np.random.Generator) -> None:
    pixels = draw.integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"HAM10000_{part}" / f"{name}.jpg")
    mask = np.zeros((30, 40), bool)
    x, y = draw.integers(3, 12, 2)
    mask[y : y + 12, x : x + 18] = True
    place = folder / "HAM10000_segmentations_lesion_tschandl"
    Image.fromarray(mask).save(place / f"{name}_segmentation.png")
