"""Sets a and b of the PhysioNet Challenge 2012 in small, with the oddities of the published files.

Stays 0 to 7 of set a are the odd ones: see `ODD`.
"""

from pathlib import Path

import numpy as np

FIRST = 132539
COUNT = 60
#: What is odd about which stay of set a.
ODD = {
    "height in metres": 0,
    "pH without its point": 1,
    "frozen": 2,
    "weightless": 3,
    "unknown descriptors": 4,
    "descriptors alone": 5,
    "twice at one time": 6,
    "no ICU type": 7,
}
_CHARTED = {"HR": 86, "RespRate": 19, "SysABP": 118, "DiasABP": 61, "Temp": 37, "Urine": 90}
_LABS = {"Creatinine": 1.2, "BUN": 24, "pH": 7.38, "K": 4.1, "Platelets": 210, "WBC": 11.5}


def build(folder: Path) -> Path:
    """60 stays with outcomes in set a, 4 stays in set b without."""
    lines = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    for name, first, count in (("set-a", FIRST, COUNT), ("set-b", FIRST + 10_000, 4)):
        (folder / name).mkdir()
        for index in range(count):
            record = first + index
            died = index % 7 == 3
            draw = np.random.default_rng((12, record))
            rows = _rows(record, index if name == "set-a" else COUNT, died, draw)
            text = "Time,Parameter,Value\n" + "".join(",".join(row) + "\n" for row in rows)
            (folder / name / f"{record}.txt").write_text(text)
            if name == "set-a":
                survival = 6 if died else (400 if index % 5 == 0 else -1)
                stay = -1 if index == 9 else 11
                lines.append(
                    f"{record},{index % 20 - 1},{index % 9 - 1},{stay},{survival},{died:d}"
                )
    (folder / "Outcomes-a.txt").write_text("\n".join(lines) + "\n")
    return folder


def _rows(record: int, index: int, died: bool, draw: np.random.Generator) -> list[list[str]]:
    start = "00:00"
    described = {
        "RecordID": record,
        "Age": draw.integers(18, 91),
        "Gender": draw.integers(0, 2),
        "Height": round(draw.normal(170, 9), 1),
        "ICUType": index % 4 + 1,
        "Weight": round(draw.normal(80, 12), 1),
    }
    if index == ODD["height in metres"]:
        described["Height"] = 1.8
    if index == ODD["weightless"]:
        described["Weight"] = 0
    if index == ODD["unknown descriptors"]:
        described |= {"Gender": -1, "Height": -1, "Weight": -1}
    if index == ODD["no ICU type"]:
        del described["ICUType"]
    rows = [[start, name, f"{value}"] for name, value in described.items()]
    if index == ODD["descriptors alone"]:
        return rows
    for minute in sorted(draw.choice(47 * 60, size=24, replace=False).tolist()):
        time = f"{minute // 60:02d}:{minute % 60:02d}"
        table, shift = (_LABS, 0.0) if draw.random() < 0.25 else (_CHARTED, 0.2 * died)
        for name in draw.choice([*table], size=2, replace=False):
            value = table[str(name)] * (1 + shift) * draw.normal(1, 0.01 if name == "pH" else 0.05)
            rows.append([time, str(name), f"{value:.4g}"])
    if index == ODD["pH without its point"]:
        rows.append(["47:10", "pH", "735"])
    if index == ODD["frozen"]:
        rows.append(["47:10", "Temp", "-17.8"])
    if index == ODD["twice at one time"]:
        rows += [["47:30", "GCS", "3"], ["47:30", "GCS", "5"]]
    rows.append(["48:00", "HR", "70"])
    return rows
