"""Samples on disk between reading and splitting, a chunk of cases at a time.

Splits are known only once every case was read. A complete chunk on disk is not read again, so an
interrupted preparation resumes where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trustsweep.data_pipelines.building.shards import record_batch, row_bytes, table_schema
from trustsweep.data_pipelines.building.splits import SplitMember
from trustsweep.data_pipelines.building.validation import Validator, images, is_constant
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.machine import cpu_count, write_atomically
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split

#: What a chunk holds of cases: enough to be worth a file, few enough for memory.
_CHUNK_BYTES = 16 * 2**20
_CHUNK_CASES = 256


@dataclass(frozen=True)
class SampleRow:
    """What is kept in memory of a sample.

    Attributes:
        member: For splitting.
        sample_id: Unique, which the reader of all rows checks.
        image: Hash of the images, "" where there is none or it is constant.
        mask: Hash of the mask.
        content: Hash of everything else that models learn from.
        source: For messages.
    """

    member: SplitMember
    sample_id: str
    image: str
    mask: str
    content: str
    source: str


@dataclass
class Chunk:
    """What reading some cases gave: rows in the order of the record batch, notes and problems."""

    rows: list[SampleRow]
    notes: Counter[str]
    problems: list[BadFile]

    def to_json(self) -> str:
        return json.dumps(
            {
                "rows": [dataclasses.asdict(row) for row in self.rows],
                "notes": self.notes,
                "problems": [[str(p.path), p.reason] for p in self.problems],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Chunk:
        """Raises ValueError or KeyError for anything that `to_json` did not write."""
        raw = json.loads(text)
        rows = []
        for row in raw["rows"]:
            member = row.pop("member")
            split = member["split"] and Split(member["split"])
            strata = tuple(member["strata"])
            rows.append(
                SampleRow(SplitMember(member["patient"], member["site"], strata, split), **row)
            )
        problems = [BadFile(Path(path), reason) for path, reason in raw["problems"]]
        return cls(rows, Counter(raw["notes"]), problems)


class Spool:
    """The chunks of one preparation in a folder of their own.

    Args:
        folder: Holds what an earlier process of the same fingerprint left, or nothing.
        layout: What is read.
        dtype: How images are kept.
    """

    def __init__(self, folder: Path, layout: Layout[Any], dtype: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._layout = layout
        self._dtype = dtype
        self._schema: pa.Schema | None = None

    @property
    def columns(self) -> pa.Schema:
        """Of every chunk. Raises ValueError before `fill`, or where nothing was usable."""
        if self._schema is None:
            raise ValueError("no sample has been read")
        return self._schema

    def fill(self, progress: Callable[[int, int], None]) -> list[Chunk]:
        """Read every case that is not here yet; `progress` hears of cases done and in all."""
        cases = list(self._layout.cases())
        first = self._first_case(cases)
        layout = self._layout
        if not first:  # nothing is usable: one chunk holds the reasons
            problems = [outcome for outcome in layout.read(cases) if isinstance(outcome, BadFile)]
            return [Chunk([], Counter(), problems)]
        self._schema = table_schema(first[0], layout.groups, layout.modalities, self._dtype)
        validator = Validator(layout, first[0])
        size = self._cases_per_chunk(len(cases), len(first))
        chunks: list[Chunk] = []
        with ThreadPoolExecutor(cpu_count()) as pool:
            jobs = (
                pool.submit(self._chunk, index, cases[start : start + size], validator)
                for index, start in enumerate(range(0, len(cases), size))
            )
            # Few at a time, as a chunk's images are in memory until it is written.
            waiting = list(islice(jobs, 2 * cpu_count()))
            while waiting:
                chunks.append(waiting.pop(0).result())
                progress(min(len(chunks) * size, len(cases)), len(cases))
                waiting += islice(jobs, 1)
        return chunks

    def take(self, places: Sequence[tuple[int, int]]) -> pa.Table:
        """The rows at (chunk, row), in that order."""
        wanted: dict[int, list[int]] = {}
        for position, (chunk, _) in enumerate(places):
            wanted.setdefault(chunk, []).append(position)
        pieces = []
        for chunk, positions in wanted.items():
            with pa.memory_map(str(self._path(chunk, "arrow"))) as file:
                batch = pa.ipc.open_file(file).get_batch(0)
                pieces.append(batch.take(pa.array([places[p][1] for p in positions])))
        order = np.argsort([p for positions in wanted.values() for p in positions])
        return pa.Table.from_batches(pieces, self.columns).combine_chunks().take(pa.array(order))

    def _first_case(self, cases: Sequence[Any]) -> list[Sample]:
        """The samples of the first case that is usable."""
        for outcome in self._layout.read(cases):
            if outcome and not isinstance(outcome, BadFile):  # `_load` meets those again
                return outcome
        return []

    def _cases_per_chunk(self, cases: int, samples: int) -> int:
        """The same whenever the preparation goes on: kept beside the chunks."""
        path = self._folder / "cases-per-chunk.json"
        if not path.exists():
            fitting = _CHUNK_BYTES // (row_bytes(self.columns) * samples)
            write_atomically(path, json.dumps(max(1, min(_CHUNK_CASES, fitting, cases))))
        return int(json.loads(path.read_text(encoding="utf-8")))

    def _chunk(self, index: int, cases: Sequence[Any], validator: Validator) -> Chunk:
        done = self._path(index, "json")
        if done.exists():
            return Chunk.from_json(done.read_text(encoding="utf-8"))
        chunk, samples = self._load(cases, validator)
        if samples:
            with self._path(index, "arrow").open("wb") as file:
                with pa.ipc.new_file(file, self.columns) as writer:
                    writer.write_batch(record_batch(samples, self.columns))
                file.flush()
                os.fsync(file.fileno())
        write_atomically(done, chunk.to_json())
        return chunk

    def _load(self, cases: Sequence[Any], validator: Validator) -> tuple[Chunk, list[Sample]]:
        chunk, samples = Chunk([], Counter(), []), []
        for theirs in self._layout.read(cases):
            if isinstance(theirs, BadFile):
                chunk.problems.append(theirs)
                continue
            try:
                notes = [validator.notes(sample) for sample in theirs]
            except BadFile as problem:
                chunk.problems.append(problem)
                continue
            samples += theirs
            chunk.rows += map(_row, theirs)
            chunk.notes.update(chain.from_iterable(notes))
        return chunk, samples

    def _path(self, chunk: int, suffix: str) -> Path:
        return self._folder / f"chunk-{chunk:06d}.{suffix}"


def _row(sample: Sample) -> SampleRow:
    pictures = images(sample)
    telling = [p for p in pictures.values() if not is_constant(p)]
    numbers = [] if sample.series is None else [sample.series.value]
    numbers += [] if sample.tabular is None else [sample.tabular]
    return SampleRow(
        member=SplitMember(sample.patient_id, sample.site, sample.strata, sample.split),
        sample_id=sample.sample_id,
        image=_hash(*pictures.values()) if telling else "",
        mask="" if sample.mask is None else _hash(sample.mask),
        content=_hash(
            *numbers,
            np.array(sample.label if sample.label is not None else -1),
            *(np.array(value) for value in (sample.time, sample.event) if value is not None),
        ),
        source=str(sample.source or sample.sample_id),
    )


def _hash(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
