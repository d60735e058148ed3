"""MedMNIST: one of its solid sets, as NumPy writes it."""

from pathlib import Path

import numpy as np

COUNTS = {"train": 44, "val": 12, "test": 15}


def build(folder: Path) -> Path:
    """organmnist3d.npz: 71 volumes of 28 voxels a side, eleven classes, labels (N, 1)."""
    draw = np.random.default_rng(3)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, 28, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 11).astype(np.uint8)[:, None]
    np.savez_compressed(folder / "organmnist3d.npz", **arrays)
    return folder
