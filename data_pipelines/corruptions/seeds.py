"""Seeds that depend on what a sample is, not on when it comes along."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch
from torch import Tensor


def draw_seeds(sample_ids: Iterable[str], *salt: int | str) -> Tensor:
    """(B,) long, non-negative: one seed for each identifier under this salt.

    The same on every machine and in every process (BLAKE2b of the JSON list of both), other than
    Python's `hash`. Salts separate uses: an epoch, a purpose, a study's seed.
    """
    return torch.tensor([_seed([sample_id, *salt]) for sample_id in sample_ids], dtype=torch.long)


def _seed(parts: list[int | str]) -> int:
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    # 63 bits: a torch long has a sign.
    return int.from_bytes(digest, "big") >> 1
