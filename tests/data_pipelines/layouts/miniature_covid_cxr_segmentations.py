"""COVID-19 CXR segmentations as plain files: images, two kinds of masks, boxes, metadata."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

PLACES = ("Hanoi, Vietnam", "Ospedale Maggiore. Rome, Italy", "Hong Kong", "Taiwan ", "")
KINDS = ("Airways", "Ground Glass Opacities", "Left Lung", "Right Lung")


def build(folder: Path) -> Path:
    """45 patients with 1 or 2 images of 256 pixels; gaps in the metadata, one mask empty."""
    draw = np.random.default_rng(19)
    index = [["image", "orig", "orig_w", "orig_h", "infection_frac", "split"]]
    people = [["patientid", "offset", "sex", "age", "finding", "view", "location", "filename"]]
    boxes = [["filename", "cls", "x", "y", "w", "h"]]
    for place in ("images", "masks/lung", "masks/infection"):
        (folder / place).mkdir(parents=True)
    for patient in range(45):
        sex, age = draw.choice(["M", "F", ""]), draw.choice(["", "70.0", "35.0", "52.0"])
        for visit in range(1 + patient % 2):
            name = f"case{patient}-day{visit}"
            index.append([f"{name}.png", f"{name}.jpeg", 900, 800, 0.1, _use(patient)])
            where = PLACES[patient % len(PLACES)]
            finding, view = "COVID-19", draw.choice(["PA", "AP"])
            people.append([patient, visit, sex, age, finding, view, where, f"{name}.jpeg"])
            for kind in KINDS:
                x, y, w, h = draw.uniform(5, 120, 4).round(2)
                boxes.append([f"{name}.png", kind, x, y, w, h])
            _write(folder, f"{name}.png", draw, infected=patient > 0)
    for table, rows in (("index", index), ("metadata", people), ("boxes_256", boxes)):
        with (folder / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return folder


def _use(patient: int) -> str:
    return "test" if patient % 5 == 0 else "train"


def _write(folder: Path, name: str, draw: np.random.Generator, *, infected: bool) -> None:
    # Coarse noise, so that files stay small at the published 256 pixels.
    coarse = Image.fromarray(draw.integers(0, 256, (16, 16), np.uint8))
    coarse.resize((256, 256), Image.Resampling.NEAREST).save(folder / "images" / name)
    lung = np.zeros((256, 256), np.uint8)
    lung[40:200, 30:220] = 255
    Image.fromarray(lung).save(folder / "masks" / "lung" / name)
    x, y = draw.integers(40, 120, 2)
    infection = np.zeros_like(lung)
    infection[y : y + 60, x : x + 60] = 255 * infected
    Image.fromarray(infection).save(folder / "masks" / "infection" / name)
