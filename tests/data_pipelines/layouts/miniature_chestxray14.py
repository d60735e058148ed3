"""NIH ChestX-ray14 in the layout of its archives: two of the twelve image folders, all tables."""

from pathlib import Path

import numpy as np
from PIL import Image

FINDINGS = ("Atelectasis", "Effusion", "Infiltration", "Nodule", "Pleural_Thickening", "Hernia")
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def build(folder: Path) -> Path:
    """60 patients with 1 to 3 images: some stored as RGBA, one of 412 years, one not downloaded."""
    draw = np.random.default_rng(14)
    rows, boxes = [HEADER], ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    lists: dict[str, list[str]] = {"test_list.txt": [], "train_val_list.txt": []}
    for part in ("images_001", "images_002"):
        (folder / part / "images").mkdir(parents=True)
    for patient in range(1, 61):
        age = 412 if patient == 7 else int(draw.integers(1, 95))
        sex = draw.choice(["M", "F"])
        for visit in range(draw.integers(1, 4)):
            name = f"{patient:08d}_{visit:03d}.png"
            found = [label for label in FINDINGS if draw.random() < 0.2]
            fields = ["|".join(found) or "No Finding", visit, patient, age, sex]
            fields += [draw.choice(["PA", "AP"]), 2500, 2048, 0.168, 0.168, ""]
            rows.append(",".join(map(str, [name, *fields])))
            tested = patient % 5 == 0
            lists["test_list.txt" if tested else "train_val_list.txt"].append(name)
            if tested and "Infiltration" in found:
                x, y, w, h = draw.uniform(100, 400, 4)
                boxes.append(f"{name},Infiltrate,{x:.12f},{y:.12f},{w:.12f},{h:.12f},,,")
            part = "images_001" if patient <= 30 else "images_002"
            if (patient, visit) != (60, 0):
                _write(folder / part / "images" / name, draw, alpha=patient % 10 == 3)
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")
    for name, members in lists.items():
        (folder / name).write_text("\n".join(members) + "\n")
    return folder


def _write(path: Path, draw: np.random.Generator, *, alpha: bool) -> None:
    grey = Image.fromarray(draw.integers(0, 256, (32, 32), np.uint8))
    (grey.convert("RGBA") if alpha else grey).save(path)
