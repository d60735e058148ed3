"""MIMIC-CXR-JPG 2.1.0 beside MIMIC-IV 3.1 in small: names, columns and types as published.

56 patients, the first of which are odd: see `ODD`. Every stay lasts three days from noon, but for
the short one. Images are 36 x 40 pixels.
"""

import csv
import gzip
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

PATIENTS = 56
ODD = {
    "image but no stay": 0,
    "stay but no image": 1,
    "lateral view alone": 2,
    "three images in time": 3,
    "both units of temperature": 4,
    "blank, impossible and timeless events": 5,
    "no line of labels": 6,
    "image not on disk": 7,
    "short stay": 8,
    "above 89": 9,
    "image in the second stay alone": 10,
    "laboratory values of no admission": 11,
    "image of a patient whom MIMIC-IV lacks": 12,
    "every code of a label": 13,
    "image a day and an hour before": 14,
    "no view stated": 15,
}
LABELS = [
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum"),
    *("Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion"),
    *("Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"),
]
UNITS = ("Medical Intensive Care Unit (MICU)", "Coronary Care Unit (CCU)", "Neuro Stepdown")
#: itemid to a usual value; 223761 is in °F.
CHARTED = {
    **{220045: 88, 220050: 121, 220179: 119, 225309: 120, 220051: 60, 220180: 61, 225310: 62},
    **{220052: 80, 220181: 79, 225312: 78, 220210: 18, 224690: 17, 220277: 97, 223761: 98.6},
    **{223762: 37.2, 220739: 4, 223900: 5, 223901: 6},
}
MEASURED = {
    **{50862: 3.4, 50863: 90, 50861: 30, 50868: 14, 50878: 35, 50882: 24, 50885: 0.8, 50893: 8.6},
    **{50902: 104, 50912: 1.1, 50931: 130, 51222: 10.5, 51237: 1.2, 50813: 1.6, 50960: 2.0},
    **{50818: 41, 50820: 7.4, 51265: 220, 50821: 95, 50971: 4.1, 50983: 139, 51003: 0.04},
    **{51006: 22, 51301: 11},
}
#: Of no interest: a height, urine's creatinine, an alarm.
UNWANTED_CHARTED, UNWANTED_MEASURED = (226730, 223751), (51082,)


def subject(index: int) -> int:
    return 10000032 + 97 * index


def admission(index: int, stay: int = 0) -> int:
    return 22000000 + 10 * index + stay


def start(index: int, stay: int = 0) -> datetime:
    """Of the patient's first or second stay."""
    return datetime(2150 + index % 40, 3, 1, 12) + timedelta(days=60 * stay)


class _Tables:
    """Rows to write, by table."""

    def __init__(self) -> None:
        self.rows: dict[str, list[list[object]]] = {}

    def add(self, table: str, *row: object) -> None:
        self.rows.setdefault(table, []).append(list(row))


def build(folder: Path) -> Path:
    cxr, iv = folder / "mimic-cxr-jpg" / "2.1.0", folder / "mimiciv" / "3.1"
    tables = _Tables()
    for index in range(PATIENTS):
        draw = np.random.default_rng((19, index))
        if index != ODD["image of a patient whom MIMIC-IV lacks"]:
            _hospital(tables, index, draw)
        if index != ODD["stay but no image"]:
            _images(tables, cxr, index, draw)
    for item in (*CHARTED, *UNWANTED_CHARTED):
        tables.add(
            "d_items", item, "label", "abbreviation", "chartevents", "Vitals", "", "", "", ""
        )
    for item in (*MEASURED, *UNWANTED_MEASURED):
        tables.add("d_labitems", item, "label", "Blood", "Chemistry")
    tables.rows["chartevents"].sort(key=lambda row: (row[0], str(row[4]), row[6]))
    for name, header in _HEADERS.items():
        where = cxr if name.startswith("mimic-cxr") else iv / _MODULES[name]
        # Some as published, some as unpacked.
        plain = name in ("admissions", "mimic-cxr-2.0.0-split")
        _write(where / f"{name}.csv{'' if plain else '.gz'}", header.split(","), tables.rows[name])
    (cxr / "README").write_text("not read\n")
    return folder


_HEADERS = {
    "patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,"
    "admit_provider_id,admission_location,discharge_location,insurance,language,marital_status,"
    "race,edregtime,edouttime,hospital_expire_flag",
    "icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,"
    "valuenum,valueuom,warning",
    "labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,"
    "storetime,value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
    "d_items": "itemid,label,abbreviation,linksto,category,unitname,param_type,lownormalvalue,"
    "highnormalvalue",
    "d_labitems": "itemid,label,fluid,category",
    "mimic-cxr-2.0.0-metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
    "ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,"
    "ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning",
    "mimic-cxr-2.0.0-split": "dicom_id,study_id,subject_id,split",
    "mimic-cxr-2.0.0-chexpert": ",".join(("subject_id", "study_id", *LABELS)),
}
_MODULES = {
    **dict.fromkeys(("patients", "admissions", "labevents", "d_labitems"), "hosp"),
    **dict.fromkeys(("icustays", "chartevents", "d_items"), "icu"),
}


def _hospital(tables: _Tables, index: int, draw: np.random.Generator) -> None:
    age = 91 if index == ODD["above 89"] else int(draw.integers(20, 80))
    year = start(index).year - 3
    tables.add("patients", subject(index), "MF"[index % 2], age, year, "2011 - 2013", "")
    if index == ODD["image but no stay"]:
        return
    for stay in range(2 if index == ODD["image in the second stay alone"] else 1):
        _stay(tables, index, stay, draw)


def _stay(tables: _Tables, index: int, stay: int, draw: np.random.Generator) -> None:
    began = start(index, stay)
    hours = 20 if index == ODD["short stay"] else 72
    died = index % 5 == 4
    tables.add(
        "admissions",
        *(subject(index), admission(index, stay), began - timedelta(hours=5), "", "", "URGENT"),
        *("P1", "EMERGENCY ROOM", "", ("Medicare", "", "Private")[index % 3], "English", ""),
        *(("WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN")[index % 3], "", "", int(died)),
    )
    number = 30000000 + 10 * index + stay
    unit = UNITS[index % 3]
    end = began + timedelta(hours=hours)
    ids = subject(index), admission(index, stay)
    tables.add("icustays", *ids, number, unit, unit, began, end, f"{hours / 24:.6f}")
    for hour in range(-1, 60, 4):  # the first is charted before the stay begins
        _charted(tables, (*ids, number), began, hour + draw.random(), died, draw)
    hospital = "" if index == ODD["laboratory values of no admission"] else ids[1]
    for hour in range(-10, 80, 12):
        time = began + timedelta(hours=hour)
        for item in draw.choice([*MEASURED], 5, replace=False).tolist():
            _measured(tables, ids[0], hospital, time, item, MEASURED[item] * draw.normal(1, 0.05))
        _measured(tables, ids[0], hospital, time, UNWANTED_MEASURED[0], 80)
    _oddities(tables, index, (*ids, number), began)


def _charted(
    tables: _Tables,
    ids: tuple[int, int, int],
    began: datetime,
    hour: float,
    died: bool,
    draw: np.random.Generator,
) -> None:
    time = (began + timedelta(hours=hour)).replace(microsecond=0)
    for item in draw.choice([*CHARTED], 6, replace=False).tolist():
        whole = item in (220739, 223900, 223901)
        value = CHARTED[item] if whole else round(CHARTED[item] * draw.normal(1, 0.02), 1)
        if item == 220045 and died:
            value += 30
        value = min(value, 100) if item == 220277 else value
        tables.add("chartevents", *ids, 7, time, time, item, value, value, "unit", 0)
    tables.add("chartevents", *ids, 7, time, time, UNWANTED_CHARTED[0], 170, 170, "cm", 0)


def _measured(
    tables: _Tables, patient: int, hospital: object, time: datetime, item: int, value: float
) -> None:
    number = len(tables.rows.get("labevents", ())) + 1
    tables.add(
        "labevents",
        *(number, patient, hospital, number, item, "", time, time, f"{value:.2f}", f"{value:.2f}"),
        *("mg/dL", "", "", "abnormal", "ROUTINE", 'IF "HIGH", REPEAT,\nAS ORDERED.'),
    )


def _oddities(tables: _Tables, index: int, ids: tuple[int, int, int], began: datetime) -> None:
    def chart(hour: float, item: int, value: object) -> None:
        time = began + timedelta(hours=hour)
        tables.add("chartevents", *ids, 7, time, time, item, value, value, "", 0)

    if index == ODD["both units of temperature"]:
        chart(41.25, 223761, 104.0)
        chart(41.75, 223762, 39.0)
    if index == ODD["blank, impossible and timeless events"]:
        chart(41.5, 220045, "")
        chart(42.5, 220045, 8888)
        tables.add(
            "labevents", 999999, ids[0], ids[1], 1, 50912, "", "", "", 1, 1, "", "", "", "", "", ""
        )


def _images(tables: _Tables, cxr: Path, index: int, draw: np.random.Generator) -> None:
    """(hours since the first stay's start, view)."""
    views = [(6.5, "AP"), (6.5, "LATERAL")]
    if index == ODD["lateral view alone"]:
        views = [(6.5, "LATERAL")]
    if index == ODD["three images in time"]:
        views = [(-20, "PA"), (6.5, "AP"), (30, "AP"), (49, "AP")]
    if index == ODD["image in the second stay alone"]:
        views = [(60 * 24 + 6.5, "PA")]
    if index == ODD["image a day and an hour before"]:
        views = [(-25, "PA")]
    if index == ODD["no view stated"]:
        views = [(6.5, "")]
    for place, (hour, view) in enumerate(views):
        time = start(index) + timedelta(hours=hour)
        study = 50000000 + 100 * index + (place if index == ODD["three images in time"] else 0)
        name = "-".join(f"{part:08x}" for part in draw.integers(0, 2**32, 5).tolist())
        # Without the zeros in front, as a number.
        clock = f"{int(time.strftime('%H%M%S'))}.{125 * place:03d}"
        tables.add(
            "mimic-cxr-2.0.0-metadata",
            *(name, subject(index), study, "CHEST (PORTABLE AP)", view, 36, 40),
            *(time.strftime("%Y%m%d"), clock, "", "", "Erect"),
        )
        split = ("train", "train", "train", "validate", "test")[index % 5]
        tables.add("mimic-cxr-2.0.0-split", name, study, subject(index), split)
        if place == 0 or index == ODD["three images in time"]:
            _labels(tables, index, study, draw)
        if index != ODD["image not on disk"]:
            patient = f"p{subject(index)}"
            path = cxr / "files" / patient[:3] / patient / f"s{study}" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 256, (36, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(path, quality=90)


def _labels(tables: _Tables, index: int, study: int, draw: np.random.Generator) -> None:
    if index == ODD["no line of labels"]:
        return
    codes = draw.choice(["", "1.0", "0.0", "-1.0"], len(LABELS), p=[0.6, 0.2, 0.15, 0.05]).tolist()
    if index == ODD["every code of a label"]:
        codes[:4] = ["", "1.0", "0.0", "-1.0"]
    tables.add("mimic-cxr-2.0.0-chexpert", subject(index), study, *codes)


def _write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
