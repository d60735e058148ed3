"""The cost of a trial: time, images, gradients and memory, over all ranks and restarts."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trustsweep.distributed.workers.rank import Rank

_PREFIX = "cost."
_MIB = 2**20


@dataclass
class Cost:
    """The figures of `trainables.metrics.catalog.COSTS`; memory in MiB, counts exact to 2^53."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    images: float = 0.0
    gradients: float = 0.0
    attack_gradients: float = 0.0
    peak_memory: float = 0.0

    def add(self, other: Cost) -> None:
        """Add another cost."""
        peak = max(self.peak_memory, other.peak_memory)
        for name in _names():
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak_memory = peak

    def metrics(self) -> dict[str, float]:
        """By their full names, as ``cost.images``."""
        return {_PREFIX + name: getattr(self, name) for name in _names()}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> Cost:
        """The inverse of `metrics`; other keys may be there."""
        return cls(**{name: float(metrics[_PREFIX + name]) for name in _names()})


def _names() -> list[str]:
    return [f.name for f in dataclasses.fields(Cost)]


class Meter:
    """Counts what this process and the other ranks do for one trial; `total` is the same on all
    ranks but for `seconds`, which are each rank's own."""

    def __init__(self, rank: Rank, device: torch.device) -> None:
        self.total = Cost()
        self._rank = rank
        self._device = device
        _reset_peak(device)

    @contextmanager
    def running(self) -> Iterator[Cost]:
        """Time what is done inside, which adds its own counts to the cost that is yielded.

        All ranks leave together: the counts are then those of all of them. Nothing is added where
        an error leaves.
        """
        spent = Cost()
        started = time.perf_counter()
        yield spent
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        spent.seconds = time.perf_counter() - started
        spent.gpu_seconds = spent.seconds if self._device.type == "cuda" else 0.0
        self._reduce(spent)
        self.total.add(spent)

    def _reduce(self, spent: Cost) -> None:
        summed = ("gpu_seconds", "images", "gradients", "attack_gradients")
        counts = [getattr(spent, name) for name in summed]
        reduced = self._rank.reduce(self._tensor(counts)).tolist()
        for name, value in zip(summed, reduced, strict=True):
            setattr(spent, name, value)
        spent.peak_memory = self._rank.largest(self._tensor(_peak_memory(self._device))).item()

    def _tensor(self, values: float | list[float]) -> torch.Tensor:
        # On the device, as NCCL reduces nothing else.
        return torch.tensor(values, dtype=torch.float64, device=self._device)


def _reset_peak(device: torch.device) -> None:
    """Forget the peak of what ran in this process before, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.init()  # the next call does not, and fails without
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        # 5 resets the high-water mark of resident memory (Linux, proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the mark then includes earlier trials


def _peak_memory(device: torch.device) -> float:
    """MiB since `_reset_peak`: of the GPU's allocator, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _peak_of_process()
    marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(marks[0]) / 1024 if marks else _peak_of_process()


def _peak_of_process() -> float:
    """MiB since the process began, where the system has no mark that can be reset."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
