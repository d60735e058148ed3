"""What T stochastic passes of a fusion model cost, against T full passes, in the same run.

An encoder's stem draws nothing and is computed once; its tail is one batch of T. The peer computes
everything T times, as a loop over forward passes does. Rounds are paired; the median of the ratios
is given.

    python benchmarks/mc_passes.py [--passes 20] [--rounds 15] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Feature, Kind, Manifest, Modality, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.fusion.base import FusionMethod, FusionNetwork
from trustsweep.trainables.registry import METHODS

BATCH = 32
MODELS = ("draf", "drifa-net")
NUMBERS = tuple(Feature(name=f"f{i}") for i in range(16))
#: Modalities, and one batch of each as `trustsweep.trainables.fusion.inputs.gather` gives it.
KINDS: dict[str, tuple[Modality, tuple[int, ...]]] = {
    "image 128 x 128": (Modality(name="a", kind=Kind.IMAGE, column="image"), (1, 128, 128)),
    "series of 48 x 16": (Modality(name="a", kind=Kind.SERIES, column="series"), (48, 3 * 16)),
    "table of 16": (Modality(name="a", kind=Kind.TABULAR, column="tabular"), (16,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="one round of two passes")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.passes, arguments.rounds = 2, 1
    torch.set_num_threads(1)
    rows = list(_rows(arguments.passes, arguments.rounds))
    print(f"| model | input | {arguments.passes} passes, ms | as many full passes, ms | ratio |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['input']} | {row['passes_ms']:.1f} | "
            f"{row['full_ms']:.1f} | {row['ratio']:.2f} |"
        )
    if arguments.json:
        content = {"passes": arguments.passes, "batch": BATCH, "rows": rows}
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")


def _rows(passes: int, rounds: int) -> Iterator[dict[str, Any]]:
    for model in MODELS:
        for name, (modality, shape) in KINDS.items():
            values = (torch.rand(BATCH, *shape),)
            present = torch.ones(BATCH, 1, dtype=torch.bool)
            batched, single = (_network(model, modality, n) for n in (passes, 1))
            together = partial(batched, values, present)
            apart = partial(_looped, single, passes, values, present)
            with torch.inference_mode():
                times = [(_timed(together), _timed(apart)) for _ in range(rounds + 2)][2:]
            yield {
                "model": model,
                "input": name,
                "passes_ms": 1e3 * statistics.median(a for a, _ in times),
                "full_ms": 1e3 * statistics.median(b for _, b in times),
                "ratio": statistics.median(a / b for a, b in times),
            }


def _network(model: str, modality: Modality, passes: int) -> FusionNetwork:
    config = Space([model], {}).defaults(model) | {"passes": passes}
    manifest = Manifest(
        name="benchmark",
        tasks=(TaskName.CLASSIFICATION,),
        image_shape=(1, 128, 128),
        image_scale=1.0,
        classes=("no", "yes"),
        mean=(0.5,),
        std=(0.3,),
        split_counts={},
        columns={},
        fingerprint="",
        tabular=NUMBERS,
        series=NUMBERS,
        modalities=(modality,),
    )
    method: FusionMethod = METHODS[model](config, manifest)
    return method.network().eval()


def _looped(
    network: FusionNetwork, passes: int, values: tuple[Tensor, ...], present: Tensor
) -> None:
    for _ in range(passes):
        network(values, present)


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
