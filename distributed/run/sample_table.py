"""Per-sample scores as Parquet beside a model's card; patients appear as hashes of the run."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.machine import replacing
from trustsweep.data_pipelines.schema import Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.trainables.sample_scores import SampleScores

#: What patients are hashed with. With it, a known patient id can be looked up, so do not share
#: it with the results.
SALT = ".salt"
_SALT_BYTES, _HASH_BYTES = 32, 8


@dataclass(frozen=True)
class Origins:
    """Where the samples of a split come from, in the order of its scores.

    Attributes:
        patients: Hashes, the same for the same patient within a run.
        sites: How many there are.
    """

    patients: list[str]
    sites: int

    @property
    def counts(self) -> dict[str, int]:
        """Ready for a card: images, patients, sites."""
        return {
            "images": len(self.patients), "patients": len({*self.patients}), "sites": self.sites,
        }  # fmt: skip


def salt(run: Path) -> bytes:
    """The run's own salt, drawn on first use."""
    path = run / SALT
    with suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(_SALT_BYTES))
    return bytes.fromhex(path.read_text())


def origins(data: Folder, split: Split, sample_ids: Sequence[str], key: bytes) -> Origins:
    """Patients and sites of these samples of a split; `key` is the run's `salt`."""
    table = read_table(data, split, ["sample_id", "patient_id", "site"])
    columns = (table[name].to_pylist() for name in ("sample_id", "patient_id", "site"))
    known = {name: (patient, site) for name, patient, site in zip(*columns, strict=True)}
    return Origins(
        patients=[_hashed(known[name][0], key) for name in sample_ids],
        sites=len({known[name][1] for name in sample_ids}),
    )


def write_table(path: Path, parts: Iterable[tuple[Split, SampleScores, Origins]]) -> None:
    """Write the scores of several splits as one table: a row for each sample and condition.

    Columns: sample_id, split, patient (a hash), the group columns, condition, and those of
    `SampleScores`. The file is replaced as a whole.
    """
    tables = [
        _table(split, condition, scores, where)
        for split, scores, where in parts
        for condition in scores.conditions
    ]
    with replacing(path) as partial:
        pq.write_table(pa.concat_tables(tables), partial, compression="zstd")


def _table(split: Split, condition: str, scores: SampleScores, where: Origins) -> pa.Table:
    names = scores.sample_ids
    columns: dict[str, Any] = {
        "sample_id": pa.array(names, pa.string()),
        "split": pa.array([str(split)] * len(names), pa.string()),
        "patient": pa.array(where.patients, pa.string()),
    }
    for group, values in scores.groups.items():
        kind = pa.float64() if group == "age" else pa.string()
        columns[group] = pa.array(values, kind)
    columns["condition"] = pa.array([condition] * len(names), pa.string())
    for name, array in scores.columns(condition).items():
        columns[name] = pa.array(array if array.ndim == 1 else array.tolist())
    return pa.table(columns)


def _hashed(patient: str, key: bytes) -> str:
    return hashlib.blake2b(patient.encode(), digest_size=_HASH_BYTES, key=key).hexdigest()
