"""A data set in the object store: read once for a whole sweep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder

if TYPE_CHECKING:
    from ray.data.dataset import MaterializedDataset

#: Splits of up to so many stored bytes are read by this process: starting those that Ray Data
#: reads with takes seconds, reading this much a fraction of one.
_SMALL = 64 * 2**20


def materialise(
    location: str | Path | Folder, splits: Iterable[Split], *, small: int = _SMALL
) -> dict[str, MaterializedDataset]:
    """Read splits into the object store; every slot's workers then map the same blocks.

    Splits of more than `small` stored bytes are read by Ray Data's tasks, with all of the cluster's
    CPUs; smaller ones by this process.

    Raises `UserError` for a storage that does not answer.
    """
    import ray.data

    folder = Folder(location)
    filesystem = folder.filesystem if folder.remote else None
    sizes = Manifest.load(folder).stored_bytes

    def read(split: Split) -> MaterializedDataset:
        if sizes.get(split, 0) <= small:
            return ray.data.from_arrow(read_table(folder, split))
        return ray.data.read_parquet(folder.path(split), filesystem=filesystem).materialize()

    return {str(split): read(split) for split in splits}
