"""A data set in the object store: read once for a whole sweep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trustsweep.data_pipelines.schema import Split
from trustsweep.data_pipelines.storage import Folder

if TYPE_CHECKING:
    from ray.data.dataset import MaterializedDataset


def materialise(
    location: str | Path | Folder, splits: Iterable[Split]
) -> dict[str, MaterializedDataset]:
    """Read splits into the object store; every slot's workers then map the same blocks.

    Raises `UserError` for a storage that does not answer.
    """
    import ray.data

    folder = Folder(location)
    filesystem = folder.filesystem if folder.remote else None
    return {
        str(split): ray.data.read_parquet(folder.path(split), filesystem=filesystem).materialize()
        for split in splits
    }
