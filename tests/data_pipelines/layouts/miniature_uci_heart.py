"""processed.*.data of the UCI heart disease data in the official coding: no header, "?" missing."""

from pathlib import Path

import numpy as np

HOSPITALS = {"cleveland": 40, "hungarian": 36, "switzerland": 24, "va": 30}


def build(folder: Path) -> Path:
    """130 rows; each hospital with the gaps it is known for, and a file that is not read."""
    for index, (hospital, count) in enumerate(HOSPITALS.items()):
        draw = np.random.default_rng((7, index))
        lines = [",".join(_row(hospital, draw)) for _ in range(count)]
        if hospital == "va":
            lines.append(lines[3])
        (folder / f"processed.{hospital}.data").write_text("\n".join(lines) + "\n")
    (folder / "heart-disease.names").write_text("a description\n")
    return folder


def _row(hospital: str, draw: np.random.Generator) -> list[str]:
    num = int(draw.integers(0, 2 if hospital == "hungarian" else 5))
    values = {
        "age": round(draw.normal(54 + num, 8)),
        "sex": draw.choice([0, 1, 1]),
        "cp": draw.integers(1, 5),
        "trestbps": round(draw.normal(132, 15)),
        "chol": 0 if hospital == "switzerland" else round(draw.normal(240, 40)),
        "fbs": draw.choice([0, 0, 1]),
        "restecg": draw.integers(0, 3),
        "thalach": round(draw.normal(150 - 6 * num, 18)),
        "exang": draw.choice([0, 1]),
        "oldpeak": round(draw.normal(0.4 * num, 0.8), 1),
        "slope": draw.integers(1, 4),
        "ca": draw.integers(0, 4),
        "thal": draw.choice([3, 6, 7]),
        "num": num,
    }
    # Cleveland writes floats, the others whole numbers.
    row = [f"{float(v):.1f}" if hospital == "cleveland" else f"{v:g}" for v in values.values()]
    row[-1] = str(num)
    absent = {"cleveland": (), "hungarian": (10, 11, 12), "switzerland": (5, 11), "va": (11, 12)}
    for column in absent[hospital]:
        if draw.random() < 0.9:
            row[column] = "?"
    if hospital == "va" and draw.random() < 0.4:  # nobody did the exercise test
        row[7:11] = ["?"] * 4
    if hospital == "va" and draw.random() < 0.15:
        row[3] = "0"
    return row
