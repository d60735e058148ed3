"""What the challenge's files hold: parameters, their units, and what their values can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ClinicalParameter:
    """A measured parameter: its unit as published, and its least and greatest possible value.

    Bounds separate impossible values (a disconnected transducer's 0, a pH of 735, -17.8 °C, a
    height of 1.8 in centimetres) from rare ones. They are wide, so that no measurement of a living
    patient falls outside.
    """

    unit: str
    least: float
    greatest: float


_PRESSURE = ClinicalParameter("mmHg", 1, 375)
VITALS: Mapping[str, ClinicalParameter] = {
    "DiasABP": _PRESSURE,
    "FiO2": ClinicalParameter("", 0.2, 1),
    "GCS": ClinicalParameter("", 3, 15),
    "HR": ClinicalParameter("1/min", 1, 300),
    "MAP": _PRESSURE,
    "MechVent": ClinicalParameter("", 0, 1),
    "NIDiasABP": _PRESSURE,
    "NIMAP": _PRESSURE,
    "NISysABP": _PRESSURE,
    "RespRate": ClinicalParameter("1/min", 0, 150),
    "SysABP": _PRESSURE,
    "Temp": ClinicalParameter("°C", 10, 50),
    "Urine": ClinicalParameter("ml", 0, 20_000),
    "Weight": ClinicalParameter("kg", 20, 650),
}
LABS: Mapping[str, ClinicalParameter] = {
    "ALP": ClinicalParameter("IU/l", 1, 50_000),
    "ALT": ClinicalParameter("IU/l", 1, 50_000),
    "AST": ClinicalParameter("IU/l", 1, 50_000),
    "Albumin": ClinicalParameter("g/dl", 0.1, 10),
    "BUN": ClinicalParameter("mg/dl", 0.1, 300),
    "Bilirubin": ClinicalParameter("mg/dl", 0.01, 150),
    "Cholesterol": ClinicalParameter("mg/dl", 1, 3_000),
    "Creatinine": ClinicalParameter("mg/dl", 0.01, 150),
    "Glucose": ClinicalParameter("mg/dl", 1, 10_000),
    "HCO3": ClinicalParameter("mmol/l", 1, 100),
    "HCT": ClinicalParameter("%", 1, 100),
    "K": ClinicalParameter("mmol/l", 0.1, 30),
    "Lactate": ClinicalParameter("mmol/l", 0.01, 60),
    "Mg": ClinicalParameter("mmol/l", 0.01, 20),
    "Na": ClinicalParameter("mmol/l", 50, 200),
    "PaCO2": ClinicalParameter("mmHg", 1, 300),
    "PaO2": ClinicalParameter("mmHg", 1, 800),
    "Platelets": ClinicalParameter("1/nl", 0, 5_000),
    "SaO2": ClinicalParameter("%", 1, 100),
    "TroponinI": ClinicalParameter("µg/l", 0, 2_000),
    "TroponinT": ClinicalParameter("µg/l", 0, 500),
    "WBC": ClinicalParameter("1/nl", 0, 1_000),
    "pH": ClinicalParameter("", 6.3, 8.5),
}
SERIES = {**VITALS, **LABS}
CHANNEL = {name: channel for channel, name in enumerate(SERIES)}

ICUS = ("coronary care", "cardiac surgery recovery", "medical", "surgical")
SEXES = ("female", "male")
DESCRIPTORS: Mapping[str, ClinicalParameter] = {
    "Age": ClinicalParameter("years", 15, 120),
    "Gender": ClinicalParameter("", 0, 1),
    "Height": ClinicalParameter("cm", 50, 275),
    "ICUType": ClinicalParameter("", 1, 4),
    "Weight": VITALS["Weight"],
}
#: Descriptors that are codes: the least code, and what the codes stand for in their order.
CATEGORIES: Mapping[str, tuple[int, tuple[str, ...]]] = {"Gender": (0, SEXES), "ICUType": (1, ICUS)}

RECORD = "RecordID"
KNOWN = (RECORD, *dict.fromkeys((*DESCRIPTORS, *SERIES)))
#: What the publisher writes for a descriptor that is not known.
UNKNOWN = -1
