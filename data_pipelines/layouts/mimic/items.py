"""Which rows of MIMIC-IV's event tables make which channel of the series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Channel:
    """One channel of the series.

    Attributes:
        unit: Of the stored values.
        least, greatest: Values outside are impossible and count as missing. Chosen wide.
        items: `itemid` of MIMIC-IV, each of which fixes its unit.
        fahrenheit: Those of `items` that are in °F.
    """

    unit: str
    least: float
    greatest: float
    items: tuple[int, ...]
    fahrenheit: tuple[int, ...] = ()


#: Of `icu/chartevents`, as grouped by MIT-LCP's mimic-code (concepts/measurement/vitalsign). The
#: Glasgow Coma Scale comes as its three parts: their sum would have to guess at intubated patients,
#: whose verbal response is charted as 1 ("No Response-ETT").
VITALS: Mapping[str, Channel] = {
    "heart_rate": Channel("1/min", 1, 300, (220045,)),
    "systolic_pressure": Channel("mmHg", 1, 400, (220050, 220179, 225309)),
    "diastolic_pressure": Channel("mmHg", 1, 300, (220051, 220180, 225310)),
    "mean_pressure": Channel("mmHg", 1, 300, (220052, 220181, 225312)),
    "respiratory_rate": Channel("1/min", 1, 70, (220210, 224690)),
    "spo2": Channel("%", 1, 100, (220277,)),
    "temperature": Channel("°C", 10, 50, (223761, 223762), fahrenheit=(223761,)),
    "gcs_eye": Channel("", 1, 4, (220739,)),
    "gcs_verbal": Channel("", 1, 5, (223900,)),
    "gcs_motor": Channel("", 1, 6, (223901,)),
}
#: Of `hosp/labevents`: blood alone.
LABS: Mapping[str, Channel] = {
    "albumin": Channel("g/dl", 0.1, 10, (50862,)),
    "alkaline_phosphatase": Channel("IU/l", 1, 50_000, (50863,)),
    "alt": Channel("IU/l", 1, 50_000, (50861,)),
    "anion_gap": Channel("mmol/l", -20, 100, (50868,)),
    "ast": Channel("IU/l", 1, 50_000, (50878,)),
    "bicarbonate": Channel("mmol/l", 1, 100, (50882,)),
    "bilirubin": Channel("mg/dl", 0.01, 150, (50885,)),
    "calcium": Channel("mg/dl", 0.1, 40, (50893,)),
    "chloride": Channel("mmol/l", 10, 200, (50902,)),
    "creatinine": Channel("mg/dl", 0.01, 150, (50912,)),
    "glucose": Channel("mg/dl", 1, 10_000, (50931,)),
    "hemoglobin": Channel("g/dl", 0.1, 30, (51222,)),
    "inr": Channel("", 0.1, 50, (51237,)),
    "lactate": Channel("mmol/l", 0.01, 60, (50813,)),
    "magnesium": Channel("mg/dl", 0.01, 40, (50960,)),
    "pco2": Channel("mmHg", 1, 300, (50818,)),
    "ph": Channel("", 6.3, 8.5, (50820,)),
    "platelets": Channel("1/nl", 0, 5_000, (51265,)),
    "po2": Channel("mmHg", 1, 800, (50821,)),
    "potassium": Channel("mmol/l", 0.1, 30, (50971,)),
    "sodium": Channel("mmol/l", 50, 200, (50983,)),
    "troponin_t": Channel("ng/ml", 0, 500, (51003,)),
    "urea_nitrogen": Channel("mg/dl", 0.1, 300, (51006,)),
    "white_cells": Channel("1/nl", 0, 1_000, (51301,)),
}
CHANNELS: Mapping[str, Channel] = {**VITALS, **LABS}
INDEX: Mapping[str, int] = {name: index for index, name in enumerate(CHANNELS)}


def channels_of(names: Mapping[str, Channel]) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """The items of `names`, sorted, and the channel of each."""
    pairs = sorted((item, INDEX[name]) for name, channel in names.items() for item in channel.items)
    return (
        np.array([item for item, _ in pairs], np.int64),
        np.array([index for _, index in pairs], np.int16),
    )


def in_unit(item: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in the unit of their channel."""
    fahrenheit = [i for channel in CHANNELS.values() for i in channel.fahrenheit]
    return np.where(np.isin(item, fahrenheit), (value - 32) / 1.8, value)


def possible(channel: NDArray[np.int16], value: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which values lie within the bounds of their channel; NaN does not."""
    least = np.array([c.least for c in CHANNELS.values()], np.float32)
    greatest = np.array([c.greatest for c in CHANNELS.values()], np.float32)
    return (value >= least[channel]) & (value <= greatest[channel])
