"""A cohort as studies assemble it from GDC and TCIA: tiles, gene values, MRI, clinical table."""

import csv
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

SITES = ("02", "06", "CS", "DU")
GENES = ("TP53", "IDH1", "EGFR", "ATRX", "PTEN")


def build(folder: Path) -> Path:
    """48 patients: every fifth without tiles, seventh without genes, half without MRI."""
    draw = np.random.default_rng(33)
    root = folder / "TCGA-LGG"
    root.mkdir(parents=True)
    clinical = ["case_submitter_id", "gender", "race", "age_at_index", "age_at_diagnosis"]
    rows = [[*clinical, "vital_status", "treatment_type"]]
    genes = [["case_submitter_id", *GENES]]
    for number in range(48):
        barcode = f"TCGA-{SITES[number % 4]}-{1000 + number}"
        status = ("Alive", "Dead")[number % 3 == 0] if number % 16 else "Not Reported"
        days = 365 * (30 + number) if number % 6 else "'--"
        sex, race = ("female", "male")[number % 2], ("white", "not reported", "asian")[number % 3]
        years = 30 + number if number % 4 else "'--"
        # GDC writes a row for every treatment.
        for treatment in ("Radiation Therapy, NOS", "Pharmaceutical Therapy, NOS"):
            rows.append([barcode, sex, race, years, days, status, treatment])
        if number % 5:
            _tiles(root / "tiles" / f"{barcode}-01Z-00-DX1", draw)
        if number % 7:
            values = draw.normal(8, 2, len(GENES)).round(3).tolist()
            genes.append([f"{barcode}-01A", *values])
            if number % 12 == 5:
                genes.append([f"{barcode}-11A", *values])
                genes[-2][2] = "NA"
        if number % 2:
            _scan(root / "mri" / barcode, barcode, number, draw)
    rows.append(["TCGA-02-9999", "male", "white", 60, 60 * 365, "Alive", "'--"])
    with (root / "clinical.tsv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    with (root / "genomics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(genes)
    return root


def _tiles(folder: Path, draw: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for index in range(3):
        pixels = draw.integers((150, 60, 120), (255, 180, 230), (20, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"tile_{index}.png")


def _scan(folder: Path, barcode: str, number: int, draw: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    for sequence in ("flair", "t1") if number % 3 else ("flair",):
        values = np.zeros((14, 16, 8), np.int16)
        values[3:11, 2:14, 1:7] = draw.integers(50, 900, (8, 12, 6))
        stem = f"{barcode}_{sequence}" if number % 4 == 1 else sequence
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{stem}.nii.gz")
