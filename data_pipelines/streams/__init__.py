"""How the samples of a prepared data set reach the workers that train on them.

The only package of this room that uses Ray. Three ways with one face (`Stream`): materialised in
the object store and shared by all workers of a node, resident on the worker's device, or streamed
from storage by Ray Data. What a worker sees in an epoch depends on (seed, epoch, rank, world size)
alone, and every sample comes exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustsweep.data_pipelines.lazy import exports
from trustsweep.data_pipelines.streams.modes import (
    TASK_CPUS,
    Mode,
    ModeChoice,
    SampleSource,
    choose,
)

if TYPE_CHECKING:
    from trustsweep.data_pipelines.streams.indexed import Indexed, Resident, Samples
    from trustsweep.data_pipelines.streams.materialised import materialise
    from trustsweep.data_pipelines.streams.order import Stream, Transform
    from trustsweep.data_pipelines.streams.streamed import Streamed

__all__ = [
    "TASK_CPUS",
    "Indexed",
    "Mode",
    "ModeChoice",
    "Resident",
    "SampleSource",
    "Samples",
    "Stream",
    "Streamed",
    "Transform",
    "choose",
    "materialise",
]

__getattr__ = exports(
    __name__,
    {
        "Indexed": "trustsweep.data_pipelines.streams.indexed",
        "Resident": "trustsweep.data_pipelines.streams.indexed",
        "Samples": "trustsweep.data_pipelines.streams.indexed",
        "Stream": "trustsweep.data_pipelines.streams.order",
        "Streamed": "trustsweep.data_pipelines.streams.streamed",
        "Transform": "trustsweep.data_pipelines.streams.order",
        "materialise": "trustsweep.data_pipelines.streams.materialised",
    },
)
