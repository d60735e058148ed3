"""Measurements out of event tables of hundreds of millions of rows, by ICU stay."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trustsweep.data_pipelines.layouts.mimic.items import (
    LABS,
    VITALS,
    Channel,
    channels_of,
    in_unit,
)
from trustsweep.data_pipelines.layouts.mimic.tables import IcuStay
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.tables import ColumnKind, stream_table

#: Stays whose rows share a file of the spool: some hundred thousand rows of 14 bytes.
_BUCKET = 1024
_HELD = 4
_ROW = np.dtype([("stay", "<i4"), ("second", "<i4"), ("channel", "<i2"), ("value", "<f4")])
#: Above the seconds from 1970 to MIMIC's shifted dates (2100 to 2210), which take 33 bits.
_SECONDS = 1 << 34

_Finder = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class Span:
    """What of a stay is wanted, in seconds since its start: [first, last)."""

    first: int
    last: int


class EventStore:
    """The vital signs and laboratory values of some stays.

    The tables are streamed once, when the first stay is requested. Of them only the wanted rows are
    kept, 14 bytes each, in a temporary folder (TMPDIR): some hundred megabytes for all of MIMIC-IV.
    In memory are one batch, or the rows of some thousand stays. Safe to use from several threads.

    Rows of `chartevents` name their stay. Those of `labevents` often name no admission, even in the
    ICU: they belong to the stay of their patient within which they were taken.

    Attributes:
        timeless: Rows without a time, which are left out; 0 before the first request.
    """

    def __init__(self, chartevents: Path, labevents: Path, wanted: Mapping[IcuStay, Span]) -> None:
        self._tables = chartevents, labevents
        # By patient and time, so that one search finds a laboratory value's stay.
        stays = sorted(wanted, key=lambda stay: (stay.subject, stay.start))
        self._place = {stay.stay_id: place for place, stay in enumerate(stays)}
        self._start = np.array([stay.start for stay in stays], np.int64)
        self._key = np.array([_key(stay.subject, stay.start) for stay in stays], np.int64)
        self._subject = np.array([stay.subject for stay in stays], np.int64)
        self._id = np.array([stay.stay_id for stay in stays], np.int64)
        self._span = np.array([[wanted[s].first, wanted[s].last] for s in stays], np.int64)
        self._span = self._span.reshape(-1, 2)
        self._lock = Lock()
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        self._held: OrderedDict[int, NDArray[np.void]] = OrderedDict()
        self.timeless = 0

    def of(self, stay: IcuStay) -> NDArray[np.void]:
        """Rows of a wanted stay: "second" since its start, "channel", "value" (NaN if blank).

        Raises `BadFile` where the tables cannot be used.
        """
        place = self._place[stay.stay_id]
        with self._lock:
            if self._spool is None:
                self._spool = self._filled()
            rows = self._bucket(place // _BUCKET, Path(self._spool.name))
        first, last = np.searchsorted(rows["stay"], [place, place + 1])
        return rows[first:last]

    def _bucket(self, bucket: int, folder: Path) -> NDArray[np.void]:
        """In the order of stays. The last few are kept, as threads read neighbouring stays."""
        if bucket not in self._held:
            path = folder / str(bucket)
            rows = np.fromfile(path, _ROW) if path.is_file() else np.zeros(0, _ROW)
            self._held[bucket] = rows[np.argsort(rows["stay"], kind="stable")]
        self._held.move_to_end(bucket)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return self._held[bucket]

    def _filled(self) -> tempfile.TemporaryDirectory[str]:
        """Raises `BadFile` as the readers do; nothing stays on disk then."""
        spool = tempfile.TemporaryDirectory(prefix="trustsweep-mimic-")
        self.timeless = 0
        charts, labs = self._tables
        for path, owner, names, find in (
            (charts, "stay_id", VITALS, self._stay_by_id),
            (labs, "subject_id", LABS, self._stay_by_time),
        ):
            for rows in self._rows(path, owner, names, find):
                buckets = rows["stay"] // _BUCKET
                for bucket in np.unique(buckets):
                    with (Path(spool.name) / str(bucket)).open("ab") as file:
                        rows[buckets == bucket].tofile(file)
        return spool

    def _rows(
        self, path: Path, owner: str, names: Mapping[str, Channel], find: _Finder
    ) -> Iterator[NDArray[np.void]]:
        """The wanted rows of one table, a batch after the other."""
        items, channels = channels_of(names)
        wanted = pa.array(items)
        owners = pa.array(np.unique(self._id if owner == "stay_id" else self._subject))
        for batch in stream_table(path, _columns(owner), private=(owner,)):
            chosen = batch.filter(
                pc.and_(
                    pc.is_in(batch["itemid"], value_set=wanted),
                    pc.is_in(batch[owner], value_set=owners),
                )
            )
            timed = chosen.filter(pc.is_valid(chosen["charttime"]))
            self.timeless += chosen.num_rows - timed.num_rows
            if timed.num_rows:
                second = _seconds(path, timed["charttime"])
                item = timed["itemid"].to_numpy(zero_copy_only=False)
                value = timed["valuenum"].to_numpy(zero_copy_only=False)
                stay = find(timed[owner].to_numpy(zero_copy_only=False), second)
                channel = channels[np.searchsorted(items, item)]
                yield self._spanned(stay, second, channel, in_unit(item, value))

    def _spanned(
        self,
        stay: NDArray[np.int64],
        second: NDArray[np.int64],
        channel: NDArray[np.int16],
        value: NDArray[np.float64],
    ) -> NDArray[np.void]:
        """Rows within the span of their stay; `stay` is -1 for rows of no stay."""
        since = second - self._start[stay]
        inside = (stay >= 0) & (since >= self._span[stay, 0]) & (since < self._span[stay, 1])
        rows = np.zeros(int(inside.sum()), _ROW)
        rows["stay"], rows["second"] = stay[inside], since[inside]
        rows["channel"] = channel[inside]
        with np.errstate(over="ignore"):  # infinite values are out of bounds, and left out later
            rows["value"] = value[inside]
        return rows

    def _stay_by_id(
        self, stay_id: NDArray[np.int64], second: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        order = np.argsort(self._id)
        return order[np.searchsorted(self._id, stay_id, sorter=order)]

    def _stay_by_time(
        self, subject: NDArray[np.int64], second: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The patient's last stay that began before; `_spanned` sees to its end."""
        place = np.searchsorted(self._key, _key(subject, second), side="right") - 1
        return np.where((place >= 0) & (self._subject[place] == subject), place, -1)


@overload
def _key(subject: int, second: int) -> int: ...
@overload
def _key(subject: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]: ...
def _key(subject: Any, second: Any) -> Any:
    """One number that orders by patient, then by time."""
    return subject * _SECONDS + second


def _columns(owner: str) -> dict[str, ColumnKind]:
    return {
        owner: ColumnKind.INTEGER,
        "charttime": ColumnKind.TEXT,
        "itemid": ColumnKind.INTEGER,
        "valuenum": ColumnKind.NUMBER,
    }


def _seconds(path: Path, times: pa.Array) -> NDArray[np.int64]:
    """Since 1970."""
    try:
        parsed = pc.strptime(times, format="%Y-%m-%d %H:%M:%S", unit="s")
    except pa.ArrowInvalid:
        # Arrow's message quotes the value, which is fine: dates are shifted, and name nobody.
        raise BadFile(path, "a charttime is no time such as 2180-07-23 14:00:00.") from None
    return parsed.cast(pa.int64()).to_numpy(zero_copy_only=False)
