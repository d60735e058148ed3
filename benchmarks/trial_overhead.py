"""Fixed cost of a trial: a TorchTrainer inside each Tune trial against slots, in one run.

The same small trials (phantoms, one epoch, clean evaluation) go both ways, one at a time. Fixed
cost is the wall time from the end of one trial to the end of the next, less what the trial's worker
spent on training and evaluation. The first trial of each way is left out: it also starts Ray's
processes for a slot, and fills caches for both.

    python benchmarks/trial_overhead.py [--trials 5] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Samples, materialise
from trustsweep.distributed.sweep.resources import ray_session
from trustsweep.distributed.workers.board import WorkerSettings
from trustsweep.distributed.workers.outcome import CONFIG, STOPPABLE, TRIAL, metrics_of
from trustsweep.distributed.workers.rank import Rank
from trustsweep.distributed.workers.slot import REQUEST, Slot, SlotSettings
from trustsweep.distributed.workers.training import Training, merge_ranks
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.evaluation import EvaluationPlan

WORK = ("train.seconds", "evaluate.seconds")
SPLITS = (Split.TRAIN, Split.VAL)


class TrialClock(tune.Callback):
    """When each trial ended, and how long its worker worked."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        # A nested trial reports its figures bare.
        figures = metrics_of(trial.last_result) or trial.last_result
        work = sum(float(figures[name]) for name in WORK)
        self.ends.append((time.perf_counter(), work))

    def fixed_costs(self) -> list[float]:
        """Seconds per trial after the first."""
        pairs = zip(self.ends, self.ends[1:], strict=False)
        return [after - before - work for (before, _), (after, work) in pairs]


def nested_loop(config: dict[str, Any]) -> None:
    """The training loop as Ray's guide writes it: everything is built anew in every trial."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(1)
    worker: WorkerSettings = config["worker"]
    samples = {
        split: Samples.from_iterator(ray.train.get_dataset_shard(split), worker.manifest)
        for split in SPLITS
    }
    training = Training(config["config"], worker.manifest, worker.plan, rank=rank)
    metrics = training.epoch(samples[Split.TRAIN])
    started = time.perf_counter()
    part = training.evaluate(samples[Split.VAL], batch_size=32)
    metrics.update(merge_ranks(part, rank).compute())
    metrics["evaluate.seconds"] = time.perf_counter() - started
    ray.train.report(metrics)


def nested_trial(config: dict[str, Any], settings: SlotSettings, datasets: Any) -> None:
    """A Tune function trial that starts a TorchTrainer, as Ray's guide writes it."""
    ray.train.torch.TorchTrainer(
        nested_loop,
        train_loop_config={"config": config[CONFIG], "worker": settings.worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.workers, resources_per_worker=settings.resources_per_worker
        ),
        run_config=ray.train.RunConfig(
            name=config[TRIAL],
            storage_path=str(settings.storage),
            callbacks=[TuneReportCallback()],
        ),
        datasets=datasets,
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
    ).fit()


def measure(
    method: Any, settings: SlotSettings, datasets: Any, config: dict[str, Any], trials: int
) -> list[float]:
    """Fixed seconds of each trial after the first."""
    clock = TrialClock()
    names = [f"{method.__name__}-{settings.workers}-{number}" for number in range(trials)]
    results = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(method, settings=settings, datasets=datasets),
            tune.PlacementGroupFactory([REQUEST]),
        ),
        param_space={TRIAL: tune.grid_search(names), CONFIG: config, STOPPABLE: False},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=method is Slot),
        run_config=tune.RunConfig(storage_path=str(settings.storage), callbacks=[clock], verbose=0),
    ).fit()
    if results.errors:
        raise results.errors[0]
    return clock.fixed_costs()


def row(
    workers: int, datasets: Any, manifest: Manifest, folder: Path, trials: int
) -> dict[str, Any]:
    """Both ways with the same trial on `workers` workers."""
    config = Space(["unet"], {"epochs": 1, "regime": "none"}).defaults("unet")
    settings = SlotSettings(
        worker=WorkerSettings(
            manifest=manifest,
            plan=EvaluationPlan(epsilons=(0.0,), corruptions=()),
            evaluation_batch_size=32,
            threads=1,
        ),
        workers=workers,
        resources_per_worker={"CPU": 1.0},
        checkpoints=folder / "checkpoints",
        storage=folder / "ray",
    )
    slots = measure(Slot, settings, datasets, config, trials)
    nested = measure(nested_trial, settings, datasets, config, trials)
    return {
        "workers": workers,
        "trials": trials - 1,
        "slot_seconds": statistics.median(slots),
        "slot_seconds_max": max(slots),
        "nested_seconds": statistics.median(nested),
        "nested_seconds_max": max(nested),
        "ratio": statistics.median(nested) / statistics.median(slots),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=5, help="trials each way, the first left out")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="two trials each way, 1 worker")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.workers = 2, [1]
    with tempfile.TemporaryDirectory(prefix="trustsweep-benchmark-") as name:
        folder = Path(name)
        manifest = prepare(None, "phantoms", folder / "data", size=64, count=96).manifest
        with ray_session():
            datasets = materialise(folder / "data", SPLITS)
            rows = [
                row(workers, datasets, manifest, folder, arguments.trials)
                for workers in arguments.workers
            ]
    print("fixed cost per trial, seconds (median of the trials after the first)")
    print(f"{'workers':>7}  {'slots':>8}  {'nested':>8}  {'nested / slots':>14}")
    for r in rows:
        print(
            f"{r['workers']:>7}  {r['slot_seconds']:>8.3f}  {r['nested_seconds']:>8.2f}  "
            f"{r['ratio']:>14.0f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
