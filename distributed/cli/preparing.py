"""The terminal output of `trustsweep prepare`: progress and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trustsweep.data_pipelines.building.prepare import PrepareReport
from trustsweep.data_pipelines.schema import Manifest

_LINE_SECONDS = 30.0


@contextmanager
def cases_read(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar of cases read on a terminal; in a job's log a line now and then."""
    if not console.is_terminal:
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                console.print(f"read {done} of {total} cases", highlight=False)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Looking through the folder", total=None)

        def bar(done: int, total: int) -> None:
            text = "Reading" if done < total else "Writing shards"
            progress.update(task, completed=done, total=total, description=text)

        yield bar


def summary(out: str, report: PrepareReport) -> str:
    """A line for each data set: where it is, how many samples, what they are."""
    if not report.folders:
        return f"{out}: {_described(report.manifest)}"
    names = ", ".join(report.folders)
    return (
        f"{out}: {len(report.folders)} data sets ({names})\n"
        f"{out}/{report.folders[0]}: {_described(report.manifest)}"
    )


def _described(manifest: Manifest) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in manifest.split_counts.items())
    shapes = {"images": manifest.image_shape}
    shapes |= {name: spec.shape for name, spec in manifest.more_images.items()}
    parts = [f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items() if shape]
    if manifest.tabular:
        parts.append(f"{len(manifest.tabular)} table entries")
    if manifest.series:
        parts.append(f"{len(manifest.series)} series")
    return f"{counts} ({'; '.join(parts)}; {', '.join(manifest.tasks)})"
