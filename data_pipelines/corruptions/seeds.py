"""Random draws that belong to a sample, whatever batch, worker or device it is on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_seeds(sample_ids: Sequence[str], *salt: int | float | str) -> Tensor:
    """(B,) long, at least 0: a stable hash of each sample's id and of what the draw is for."""
    seeds = []
    for sample_id in sample_ids:
        text = "\x1f".join((sample_id, *map(str, salt))).encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        seeds.append(int.from_bytes(digest, "big") >> 1)
    return torch.tensor(seeds, dtype=torch.long)


def normal(shape: Sequence[int], seeds: Tensor) -> Tensor:
    """(B, *shape) standard normal on the CPU, row i drawn from seeds[i] alone."""
    rows = []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows)
