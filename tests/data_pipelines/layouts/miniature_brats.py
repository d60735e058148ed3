"""BraTS 2020's training data: NIfTI files of four sequences and labels, two tables.

`write_case` writes a case of any year's names.
"""

import csv
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (16, 20, 10)
EARLY = {"flair": "_flair", "t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "seg": "_seg"}
LATE = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
#: As published: voxels count towards the patient's left and back.
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE[1, 3] = 239


def build(folder: Path) -> Path:
    """42 cases of three institutions; ages of half of them; two validation cases."""
    draw = np.random.default_rng(2020)
    root = folder / "MICCAI_BraTS2020_TrainingData"
    mapping = [
        [
            "Grade",
            "BraTS_2017_subject_ID",
            "BraTS_2018_subject_ID",
            "TCGA_TCIA_subject_ID",
            "BraTS_2019_subject_ID",
            "BraTS_2020_subject_ID",
        ]
    ]
    survival = [["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"]]
    for number in range(1, 43):
        name = f"BraTS20_Training_{number:03d}"
        write_case(root / name, EARLY, draw)
        grade = "LGG" if number % 4 == 0 else "HGG"
        earlier = f"BraTS19_{('CBICA', 'TCIA01', '2013')[number % 3]}_A{number}_1"
        if number % 14 == 0:
            earlier = "NA"
        mapping.append([grade, "NA", "NA", "NA", earlier, name])
        if number % 2:
            days = "ALIVE (361 days later)" if number == 1 else 300 + number
            survival.append([name, 40.5 + number, days, "GTR"])
    for number in (1, 2):
        name = f"BraTS20_Validation_{number:03d}"
        write_case(root / name, {k: v for k, v in EARLY.items() if k != "seg"}, draw)
    for name, rows in (("name_mapping", mapping), ("survival_info", survival)):
        with (root / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return root


def write_case(
    folder: Path, files: dict[str, str], draw: np.random.Generator, enhancing: int = 4
) -> None:
    """A head of noise in the air, with a tumour of three tissues."""
    folder.mkdir(parents=True)
    x, y, z = np.indices(SHAPE)
    head = ((x - 8) / 7) ** 2 + ((y - 10) / 9) ** 2 + ((z - 5) / 5) ** 2 < 1
    centre = draw.integers((6, 8, 4), (10, 12, 6))
    apart = np.abs(np.stack([x, y, z], axis=-1) - centre).max(axis=-1)
    labels = np.select([apart == 0, apart == 1, apart == 2], [1, enhancing, 2], 0) * head
    for kind, ending in files.items():
        values = labels if kind == "seg" else head * draw.integers(100, 1000, SHAPE)
        dtype = np.uint8 if kind == "seg" else np.int16
        image = nibabel.Nifti1Image(values.astype(dtype), AFFINE)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / f"{folder.name}{ending}.nii.gz")
