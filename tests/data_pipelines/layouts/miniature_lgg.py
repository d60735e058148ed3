"""LGG Segmentation Dataset: folders of TIFF slices, masks beside them, one table."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SITES = ("CS", "DU", "EZ", "FG", "HT")
HEADER = [
    "Patient",
    "RNASeqCluster",
    "MethylationCluster",
    "miRNACluster",
    "CNCluster",
    "RPPACluster",
    "OncosignCluster",
    "COCCluster",
    "histological_type",
    "neoplasm_histologic_grade",
    "tumor_tissue_site",
    "laterality",
    "tumor_location",
    "gender",
    "age_at_initial_pathologic",
    "race",
    "ethnicity",
    "death01",
]
SIDE, SLICES = 24, 4


def build(folder: Path) -> Path:
    """45 patients of 4 slices; gaps in the table, FLAIR in place of missing sequences."""
    draw = np.random.default_rng(110)
    root = folder / "kaggle_3m"
    rows = []
    for number in range(45):
        name = f"TCGA_{SITES[number % 5]}_{5000 + number}"
        _patient(root / f"{name}_1999{1 + number % 12:02d}15", number, draw)
        rows.append([name, *_codes(number, draw)])
    rows.append(["TCGA_HT_9999", *_codes(1, draw)])
    (root / "README.md").write_text("# LGG Segmentation Dataset\n", encoding="utf-8")
    with (root / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return root


def _patient(folder: Path, number: int, draw: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for index in range(1, SLICES + 1):
        pixels = draw.integers(20, 255, (SIDE, SIDE, 3), np.uint8)
        pixels[:3] = 0
        if number % 9 == 1:
            pixels[..., 2] = pixels[..., 1]
        if number % 15 == 2:
            pixels[..., 0] = pixels[..., 1]
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if index in (2, 3):
            mask[6 + number % 8 : 16, 8:18] = 255
        stem = f"{folder.name}_{index}"
        Image.fromarray(pixels).save(folder / f"{stem}.tif", compression="tiff_adobe_deflate")
        Image.fromarray(mask).save(folder / f"{stem}_mask.tif", compression="tiff_adobe_deflate")


def _codes(number: int, draw: np.random.Generator) -> list[object]:
    clusters = [draw.integers(1, top) for top in (5, 6, 5, 4, 5, 4, 4)]
    if number % 7 == 3:
        clusters[0] = clusters[4] = ""
    if number % 20 == 4:
        return [""] * len(HEADER[1:])
    outcomes = [draw.integers(1, 4), draw.integers(1, 3), 1, draw.integers(1, 4), 2]
    return [*clusters, *outcomes, 1 + number % 2, 20 + number, 3, "", draw.integers(0, 2)]
