"""What the challenge's files hold: parameters, their units, and what their values can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """What is measured: its unit as published, and the least and the greatest value there can be.

    Bounds tell what cannot be (a disconnected transducer's 0, a pH of 735, -17.8 °C, a height of
    1.8 in centimetres) from what is rare. They are chosen wide, so that no measurement of a living
    patient falls outside.
    """

    unit: str
    least: float
    greatest: float


_PRESSURE = Parameter("mmHg", 1, 375)
VITALS: Mapping[str, Parameter] = {
    "DiasABP": _PRESSURE,
    "FiO2": Parameter("", 0.2, 1),
    "GCS": Parameter("", 3, 15),
    "HR": Parameter("1/min", 1, 300),
    "MAP": _PRESSURE,
    "MechVent": Parameter("", 0, 1),
    "NIDiasABP": _PRESSURE,
    "NIMAP": _PRESSURE,
    "NISysABP": _PRESSURE,
    "RespRate": Parameter("1/min", 0, 150),
    "SysABP": _PRESSURE,
    "Temp": Parameter("°C", 10, 50),
    "Urine": Parameter("ml", 0, 20_000),
    "Weight": Parameter("kg", 20, 650),
}
LABS: Mapping[str, Parameter] = {
    "ALP": Parameter("IU/l", 1, 50_000),
    "ALT": Parameter("IU/l", 1, 50_000),
    "AST": Parameter("IU/l", 1, 50_000),
    "Albumin": Parameter("g/dl", 0.1, 10),
    "BUN": Parameter("mg/dl", 0.1, 300),
    "Bilirubin": Parameter("mg/dl", 0.01, 150),
    "Cholesterol": Parameter("mg/dl", 1, 3_000),
    "Creatinine": Parameter("mg/dl", 0.01, 150),
    "Glucose": Parameter("mg/dl", 1, 10_000),
    "HCO3": Parameter("mmol/l", 1, 100),
    "HCT": Parameter("%", 1, 100),
    "K": Parameter("mmol/l", 0.1, 30),
    "Lactate": Parameter("mmol/l", 0.01, 60),
    "Mg": Parameter("mmol/l", 0.01, 20),
    "Na": Parameter("mmol/l", 50, 200),
    "PaCO2": Parameter("mmHg", 1, 300),
    "PaO2": Parameter("mmHg", 1, 800),
    "Platelets": Parameter("1/nl", 0, 5_000),
    "SaO2": Parameter("%", 1, 100),
    "TroponinI": Parameter("µg/l", 0, 2_000),
    "TroponinT": Parameter("µg/l", 0, 500),
    "WBC": Parameter("1/nl", 0, 1_000),
    "pH": Parameter("", 6.3, 8.5),
}
SERIES = {**VITALS, **LABS}
CHANNEL = {name: channel for channel, name in enumerate(SERIES)}

ICUS = ("coronary care", "cardiac surgery recovery", "medical", "surgical")
SEXES = ("female", "male")
DESCRIPTORS: Mapping[str, Parameter] = {
    "Age": Parameter("years", 15, 120),
    "Gender": Parameter("", 0, 1),
    "Height": Parameter("cm", 50, 275),
    "ICUType": Parameter("", 1, 4),
    "Weight": VITALS["Weight"],
}
#: Descriptors that are codes: the least code, and what the codes stand for in their order.
CATEGORIES: Mapping[str, tuple[int, tuple[str, ...]]] = {"Gender": (0, SEXES), "ICUType": (1, ICUS)}

RECORD = "RecordID"
KNOWN = (RECORD, *dict.fromkeys((*DESCRIPTORS, *SERIES)))
#: What the publisher writes for a descriptor that is not known.
UNKNOWN = -1
