"""Which way a data set's samples take to the workers, chosen by size. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from trustsweep.data_pipelines.schema import Manifest, Split

if TYPE_CHECKING:
    import torch
    from ray.data import DataIterator

    from trustsweep.data_pipelines.streams.order import Stream

#: CPUs of one task that reads and corrupts. Half: one waits for storage while another computes.
TASK_CPUS = 0.5
#: Of the object store that a data set may fill, or a stream's prepared rows.
STORE_SHARE = 0.5
#: Of the worker's GPU memory that a data set may fill, and the most it may.
DEVICE_SHARE = 0.25
DEVICE_BYTES = 2 * 2**30


class Mode(StrEnum):
    """A way from storage to a worker."""

    MATERIALISED = "materialised"
    RESIDENT = "resident"
    STREAMED = "streamed"


@dataclass(frozen=True)
class ModeChoice:
    """A mode, the bytes that need room, and the room that the mode has. Its text is for logs."""

    mode: Mode
    needed: int
    limit: int

    def __str__(self) -> str:
        needed, limit = _size(self.needed), _size(self.limit)
        match self.mode:
            case Mode.MATERIALISED:
                text = f"{needed} materialised in the object store (limit {limit})"
                over = ", Ray will spill to disk"
            case Mode.RESIDENT:
                text = f"{needed} resident on each worker's device (limit {limit})"
                over = ""
            case Mode.STREAMED:
                return f"{needed} streamed from storage (object store: {limit})"
        return text + (f"; over the limit{over}" if self.needed > self.limit else "")


def choose(wanted: str, needed: int, *, store: float, device: float) -> ModeChoice:
    """How the train and validation splits reach the workers.

    Args:
        wanted: A mode, or "auto": resident where a worker has a GPU and the data are small,
            materialised where they fit the object store, else streamed.
        needed: Bytes of both splits as stored.
        store: Bytes of the object store of the smallest node.
        device: Bytes of GPU memory that a worker has; 0 without a GPU.
    """
    in_store = int(store * STORE_SHARE)
    on_device = int(min(device * DEVICE_SHARE, DEVICE_BYTES)) if device else DEVICE_BYTES
    if wanted != "auto":
        mode = Mode(wanted)
    elif device and needed <= on_device:
        mode = Mode.RESIDENT
    else:
        mode = Mode.MATERIALISED if needed <= in_store else Mode.STREAMED
    return ModeChoice(mode, needed, on_device if mode is Mode.RESIDENT else in_store)


@dataclass(frozen=True)
class SampleSource:
    """Where a worker's samples come from.

    Attributes:
        mode: By `choose`.
        location: The prepared data set, for a stream.
        tasks, store_bytes: See `Streamed`, for each worker.
    """

    mode: Mode = Mode.MATERIALISED
    location: str = ""
    tasks: int = 2
    store_bytes: int | None = None

    def open(
        self,
        split: Split,
        manifest: Manifest,
        device: torch.device | str,
        shard: Callable[[str], DataIterator],
    ) -> Stream:
        """A split; `shard` gives the worker's view of a materialised one."""
        from trustsweep.data_pipelines.streams.indexed import Resident, Samples
        from trustsweep.data_pipelines.streams.streamed import Streamed

        if self.mode is Mode.STREAMED:
            return Streamed(
                self.location, split, manifest, tasks=self.tasks, store_bytes=self.store_bytes
            )
        samples = Samples.from_iterator(shard(split), manifest)
        return Resident(samples, device) if self.mode is Mode.RESIDENT else samples


def _size(count: int) -> str:
    """In the decimal unit that keeps it short, as 1.2 GB."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"
