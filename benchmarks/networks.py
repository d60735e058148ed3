"""What each network costs, and how far it gets after the same few epochs, at its defaults.

Networks for pixels learn generated X-rays of 64 pixels under `unet`, networks for images
PneumoniaMNIST of 28 pixels under `classifier` (generated X-rays with --quick). One seed, no attack,
no tuning: costs are to be compared, figures to be read as "it learns". Steps are timed in rounds of
all networks; the median is given, and its ratio to the default's.

    python benchmarks/networks.py --data FOLDER [--kind pixels|images] [--json FILE] [--quick]

FOLDER holds `medmnist` as published.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.workers.fidelity import CLEAN
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.registry import NETWORKS


@dataclass(frozen=True)
class Comparison:
    """Networks of one kind, on one data set.

    Attributes:
        metric: Of the test split, higher is better.
    """

    method: str
    default: str
    metric: str
    batch: int
    size: int
    epochs: int


KINDS = {
    "pixels": Comparison("unet", "unet", "dice_lesion", batch=8, size=64, epochs=10),
    "images": Comparison("classifier", "resnet", "auroc", batch=32, size=28, epochs=2),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds medmnist")
    parser.add_argument("--kind", choices=list(KINDS), help="one of them alone")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="one epoch of few generated images")
    arguments = parser.parse_args()
    kinds = [arguments.kind] if arguments.kind else list(KINDS)
    if "images" in kinds and not arguments.data and not arguments.quick:
        parser.error("--data is needed for networks for images; or take --quick")
    torch.set_num_threads(1)
    rows = []
    print("| kind | network | parameters | ms a step | ratio | metric | test |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            data = _prepared(kind, arguments.data, Path(folder) / kind, quick=arguments.quick)
            for row in _rows(kind, data, arguments.rounds, quick=arguments.quick):
                print(
                    f"| {kind} | {row['network']} | {row['parameters']:,} | {row['step_ms']:.1f} | "
                    f"{row['ratio']:.1f} | {row['metric']} | {row['test']:.3f} |",
                    flush=True,
                )
                rows.append(row)
    if arguments.json:
        write_atomically(arguments.json, json.dumps({"rows": rows}, indent=2) + "\n")


def _prepared(kind: str, published: Path | None, folder: Path, *, quick: bool) -> Path:
    size = KINDS[kind].size
    if kind == "images" and not quick:
        assert published is not None
        prepare(published / "medmnist" / "pneumoniamnist.npz", "medmnist", folder)
    else:
        prepare(None, "phantoms", folder, size=32 if quick else size, count=80 if quick else 160)
    return folder


def _rows(kind: str, folder: Path, rounds: int, *, quick: bool) -> Iterator[dict[str, Any]]:
    """One for each network: costs of all first, in turns, then a training of each."""
    comparison = KINDS[kind]
    names = NETWORKS.having(kind=kind)
    steps = {name: _training(comparison, folder, name, quick=quick) for name in names}
    batch = Samples.read(folder, Split.TRAIN).batch(range(comparison.batch))
    rounds = 1 if quick else rounds
    times = [{name: _step(steps[name], batch) for name in names} for _ in range(rounds + 1)][1:]
    for name in names:
        training = _training(comparison, folder, name, quick=quick)
        train, test = (Samples.read(folder, split) for split in (Split.TRAIN, Split.TEST))
        for _ in range(training.config["epochs"]):
            training.epoch(train)
        found = training.evaluate(test, CLEAN, batch_size=comparison.batch).compute()
        yield {
            "kind": kind,
            "network": name,
            "parameters": sum(p.numel() for p in training.network.parameters()),
            "step_ms": 1e3 * statistics.median(round_[name] for round_ in times),
            "ratio": statistics.median(r[name] / r[comparison.default] for r in times),
            "metric": comparison.metric,
            "test": found[f"clean.{comparison.metric}"],
        }


def _training(comparison: Comparison, folder: Path, network: str, *, quick: bool) -> Training:
    fixed = {
        "regime": "none",
        "corruption_fraction": 0.0,
        "batch_size": comparison.batch,
        "epochs": 1 if quick else comparison.epochs,
    }
    space = Space([comparison.method], fixed)
    config = space.defaults(comparison.method, network=network)
    return Training(config, Manifest.load(folder), EvaluationPlan())


def _step(training: Training, batch: Batch) -> float:
    """Seconds of forward and backward of a batch."""
    method, network = training.model.method, training.network.train()
    begin = time.perf_counter()
    loss: Tensor = method.loss(network, batch, Progress(0, 1)).total
    loss.backward()
    seconds = time.perf_counter() - begin
    network.zero_grad()
    return seconds


if __name__ == "__main__":
    main()
