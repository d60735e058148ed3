"""How good the models are that a search finds, beside published figures and MONAI's networks.

Classification: the trials of the shipped study `recipes` (one objective, `clean.auroc` on
validation), drawn by the sampler of the product; the best by validation is trained again under
seeds that the search did not use, and each of these models is evaluated on the test split, once.
Segmentation: U-Net and evidential U-Net beside MONAI's BasicUNet and DynUNet, all with 16 channels
at the finest level, the same recipe, epochs and seeds. Intervals redraw patients; they are of the
mean over the seeds. Writes docs/results/anchors.md.

    python benchmarks/anchors.py --data DATA --out runs/anchors [--jobs N] [--only NAME ...]
        [--json FILE] [--quick]

DATA holds `medmnist`, `covid19_cxr_qata_layout` and `covid19_cxr_segmentations`; with --quick,
generated X-rays stand for all of them. Every training is kept: a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import BasicUNet, DynUNet
from torch import nn

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.machine import replacing, write_atomically
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Manifest, Split, TaskName
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams.indexed import Samples
from trustsweep.distributed.run.folder import evaluation_plan, objectives_of
from trustsweep.distributed.run.ledger import Record, State, trial_id
from trustsweep.distributed.run.trivial import read_trivial
from trustsweep.distributed.search.sampling import Sampling
from trustsweep.distributed.statistics.inference import Estimate, Floats, bootstrap, summarise
from trustsweep.distributed.sweep.checks import task_of
from trustsweep.distributed.version import VERSION
from trustsweep.distributed.workers.fidelity import CLEAN
from trustsweep.distributed.workers.training import Diverged, Training
from trustsweep.search_spaces.study import Study, load
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.networks import PadToMultiple, Standardise
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import task_named

TABLE = Path(__file__).parents[1] / "docs" / "results" / "anchors.md"
BATCH = 128
#: The issue's bar, for the mean over seeds on test.
BAR = {"auroc": 0.960, "accuracy": 0.86}


@dataclass(frozen=True)
class ClassificationAnchor:
    """A data set on which a recipe is searched.

    Attributes:
        source: Below the folder of the data sets; "" for generated ones.
        published: Rows of the table: what, AUROC, accuracy.
        bar: Whether `BAR` is for it.
        note: What makes the published figures other ones than ours.
    """

    title: str
    layout: str
    source: str
    seeds: int = 5
    size: int | None = None
    settings: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[tuple[str, float, float], ...] = ()
    bar: bool = False
    note: str = ""


@dataclass(frozen=True)
class SegmentationAnchor:
    """A data set on which networks are compared."""

    title: str
    layout: str
    source: str
    seeds: int = 5
    size: int = 64
    epochs: int = 60
    width: int = 16
    options: Mapping[str, Any] = field(default_factory=dict)


# No data set has `published` rows yet: each is to be looked up in its paper before it stands here.
CLASSIFIED = {
    "pneumonia": ClassificationAnchor(
        "PneumoniaMNIST, 28 px",
        "medmnist",
        "medmnist/pneumoniamnist.npz",
        bar=True,
        note="Our copy of the train split has 388 of the 1,214 normal images that the published "
        "models learnt from.",
    ),
    "breast": ClassificationAnchor(
        "BreastMNIST, 28 px",
        "medmnist",
        "medmnist/breastmnist.npz",
        settings=("space.epochs=30", "space.batch_size=32"),
    ),
}
SEGMENTED = {
    "infection": SegmentationAnchor(
        "Infection on chest X-rays, 64 px", "qata-cov19", "covid19_cxr_qata_layout/QaTa-COV19-v2"
    ),
    "lung": SegmentationAnchor(
        "Lungs on chest X-rays, 64 px",
        "covid-cxr-segmentations",
        "covid19_cxr_segmentations",
        options={"target": "lung"},
    ),
}
QUICK_CLASSIFIED = {
    "phantom-classes": ClassificationAnchor(
        "Generated X-rays, 32 px", "phantoms", "", seeds=2, size=32, options={"count": 60},
        settings=("search.trials=3", "space.epochs=1", "space.width=4"),
    )
}  # fmt: skip
QUICK_SEGMENTED = {
    "phantom-masks": SegmentationAnchor(
        "Generated X-rays, 32 px", "phantoms", "", seeds=2, size=32, epochs=1, width=4,
        options={"count": 60},
    )
}  # fmt: skip
#: Of every segmentation: what all four are trained with.
RECIPE = {
    "batch_size": 8, "learning_rate": 0.003, "warm_up": 0.1, "ema": 0.99, "augmentation": 0.5,
    "regime": "none",
}  # fmt: skip
#: Not worth telling of a recipe that has no attack and one modality.
HELD = {
    "method", "seed", "regime", "corruption_fraction", "modality_corruption", "p_miss", "encoder",
    "patience",
}  # fmt: skip
#: Figure to its name in a table.
SHOWN = {
    "classification": {"auroc": "AUROC", "accuracy": "ACC", "balanced_accuracy": "balanced ACC",
                       "ece": "ECE"},
    "segmentation": {"dice_lesion": "Dice (images with a lesion)", "dice": "Dice (all)",
                     "ece_region": "ECE around the lesion"},
}  # fmt: skip


def basic_unet(manifest: Manifest, width: int) -> nn.Module:
    """MONAI's BasicUNet for one output, standardising first."""
    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    return _peer(manifest, BasicUNet, features=features)


def dyn_unet(manifest: Manifest, width: int) -> nn.Module:
    """MONAI's DynUNet (nnU-Net's network) of as many levels as BasicUNet, for one output."""
    return _peer(
        manifest,
        DynUNet,
        kernel_size=[3] * 5,
        strides=[1, 2, 2, 2, 2],
        upsample_kernel_size=[2] * 4,
        filters=[width * 2**level for level in range(5)],
        norm_name=("INSTANCE", {"affine": True}),
    )


def _peer(manifest: Manifest, network: Callable[..., nn.Module], **more: Any) -> nn.Module:
    dims = manifest.spatial_dims
    made = network(spatial_dims=dims, in_channels=manifest.channels, out_channels=1, **more)
    return nn.Sequential(Standardise(manifest.mean, manifest.std, dims), PadToMultiple(made, 16))


#: What the others are compared with.
OWN = "unet"
#: Arm to its method and, of MONAI's, the network that stands in for the method's own.
ARMS: dict[str, tuple[str, Callable[[Manifest, int], nn.Module] | None]] = {
    OWN: ("unet", None),
    "evidential-unet": ("evidential-unet", None),
    "MONAI BasicUNet": ("unet", basic_unet),
    "MONAI DynUNet": ("unet", dyn_unet),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--table", type=Path, help="the document; docs/results/anchors.md")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--only", nargs="+", help="data sets, by name; all if left out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="generated data, a minute")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("--data is needed, the folder of the published data sets")
    classified = QUICK_CLASSIFIED if arguments.quick else CLASSIFIED
    segmented = QUICK_SEGMENTED if arguments.quick else SEGMENTED
    known = [*classified, *segmented]
    chosen = arguments.only or known
    if unknown := sorted({*chosen} - {*known}):
        parser.error(f"--only: no {', '.join(unknown)} here; known: {', '.join(known)}")
    table = arguments.table or (arguments.out / "anchors.md" if arguments.quick else TABLE)
    table.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as workers:
        for name in chosen:
            folder = arguments.out / name
            if name in classified:
                results[name] = searched(classified[name], arguments.data, folder, workers)
            else:
                results[name] = compared(segmented[name], arguments.data, folder, workers)
            # What there is stands, should the next take hours.
            write_atomically(table, document(results))
            if arguments.json:
                write_atomically(arguments.json, json.dumps(results, indent=2) + "\n")
    print(document(results))


def searched(
    anchor: ClassificationAnchor, sources: Path | None, out: Path, workers: ProcessPoolExecutor
) -> dict[str, Any]:
    """The search, the retrainings and the figures of one data set."""
    data = _prepared(anchor, sources, out)
    study = load("recipes", [*anchor.settings, f"data={data}"])
    manifest = Manifest.load(data)
    prior = read_trivial(Folder(data), manifest, task_of(study, manifest)).prior
    trials = _search(study, manifest, out, prior, workers)
    objective = objectives_of(study)[0].name
    best = max(trials, key=lambda trial: trial.metrics[objective])
    train = partial(_trained, data, out, evaluation_plan(study), prior)
    # The search's seed flatters the model that it chose.
    seeds = range(1, anchor.seeds + 1)
    configs = [{**best.config, "seed": seed} for seed in seeds]
    rows = list(workers.map(train, [f"seed-{seed}" for seed in seeds], configs))
    return {
        "title": anchor.title,
        "task": "classification",
        "trials": len(trials),
        "chosen": best.config,
        "validation": best.metrics[objective],
        "spread": [trial.metrics[objective] for trial in trials],
        "cpu_seconds": sum(trial.seconds for trial in trials),
        "published": [list(row) for row in anchor.published],
        "note": anchor.note,
        "bar": BAR if anchor.bar else {},
        "counts": manifest.split_counts,
        "arms": {"found": _arm(data, out, [f"seed-{seed}" for seed in seeds], rows)},
    }


def _search(
    study: Study, manifest: Manifest, out: Path, prior: Prior, workers: ProcessPoolExecutor
) -> list[Record]:
    """Every trial that did not diverge, drawn as the product draws them; what is kept is taken."""
    evaluation = study.evaluation.model_dump()

    def identify(config: Mapping[str, Any]) -> str:
        return trial_id(config, manifest.fingerprint, "", evaluation)

    sampling = Sampling(study, objectives_of(study), identify)
    train = partial(_trained, Path(str(study.data)), out / "search", evaluation_plan(study), prior)
    running: dict[Future[dict[str, Any]], Record] = {}
    done: list[Record] = []
    for number in range(study.search.trials):
        if len(running) == workers._max_workers:
            _told(sampling, running, done)
        record = sampling.draw(number)
        if record is None:
            break
        job = workers.submit(train, f"{number:03d}-{record.id}", record.config, test=False)
        running[job] = record
    while running:
        _told(sampling, running, done)
    return sorted(done, key=lambda trial: trial.number)


def _told(
    sampling: Sampling, running: dict[Future[dict[str, Any]], Record], done: list[Record]
) -> None:
    """Wait for a trial and tell the sampler of it."""
    for job in wait(running, return_when=FIRST_COMPLETED).done:
        record = running.pop(job)
        row = job.result()
        if reason := row.get("failed"):
            sampling.tell(replace(record, state=State.FAILED, reason=reason))
            continue
        record = replace(
            record, metrics=row["val"], seconds=row["cpu_seconds"], state=State.COMPLETED
        )
        sampling.tell(record)
        done.append(record)


def compared(
    anchor: SegmentationAnchor, sources: Path | None, out: Path, workers: ProcessPoolExecutor
) -> dict[str, Any]:
    """All arms on one data set, and how far each is from `unet` on the same patients."""
    data = _prepared(anchor, sources, out)
    manifest = Manifest.load(data)
    train = partial(_trained, data, out, EvaluationPlan(), None)
    jobs: dict[tuple[str, str], Future[dict[str, Any]]] = {}
    for arm, (method, _) in ARMS.items():
        recipe = [f"space.{k}={v}" for k, v in RECIPE.items()]
        space = ["methods=[unet, evidential-unet]", *recipe, f"space.epochs={anchor.epochs}"]
        study = load("evidential", [*space, f"space.width={anchor.width}"])
        config = study.search_space().defaults(method)
        for seed in range(1, anchor.seeds + 1):
            name = f"{arm.replace(' ', '-').lower()}-{seed}"
            jobs[arm, name] = workers.submit(train, name, {**config, "seed": seed}, arm=arm)
    rows = {key: job.result() for key, job in jobs.items()}
    names = {arm: [name for a, name in jobs if a == arm] for arm in ARMS}
    arms = {}
    for arm, mine in names.items():
        arms[arm] = _arm(data, out, mine, [rows[arm, name] for name in mine])
        if arm != OWN:
            arms[arm]["above_own"] = _figures(data, out, mine, names[OWN])
    return {
        "title": anchor.title,
        "task": "segmentation",
        "epochs": anchor.epochs,
        "counts": manifest.split_counts,
        "arms": arms,
    }


def _prepared(
    anchor: ClassificationAnchor | SegmentationAnchor, sources: Path | None, out: Path
) -> Path:
    data = out / "data"
    if not (data / MANIFEST_NAME).is_file():
        source = sources / anchor.source if sources and anchor.source else None
        prepare(source, anchor.layout, data, size=anchor.size, **anchor.options)
    return data


def _trained(
    data: Path,
    out: Path,
    plan: EvaluationPlan,
    prior: Prior | None,
    name: str,
    config: Mapping[str, Any],
    *,
    arm: str = "",
    test: bool = True,
) -> dict[str, Any]:
    """Train and evaluate a model unless that was done; saves the scores of each test image."""
    torch.set_num_threads(1)
    kept = out / f"{name}.json"
    if kept.is_file():
        known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return known
    out.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    manifest = Manifest.load(data)
    peer = ARMS[arm][1] if arm else None
    network = partial(peer, manifest, int(config["width"])) if peer else None
    training = Training(config, manifest, plan, prior=prior, network=network)
    samples = Samples.read(data, Split.TRAIN)
    try:
        for _ in range(config["epochs"]):
            training.epoch(samples)
    except Diverged as problem:
        if test:  # a model that was chosen, or is compared, must not be missing from its row
            raise
        write_atomically(kept, json.dumps({"failed": str(problem)}))
        return {"failed": str(problem)}
    spent = time.process_time() - began
    validation = training.evaluate(Samples.read(data, Split.VAL), CLEAN, batch_size=BATCH).compute()
    row: dict[str, Any] = {
        "config": dict(config),
        "val": {name: value for name, value in validation.items() if name.startswith("clean.")},
        "cpu_seconds": spent,
        "parameters": sum(p.numel() for p in training.network.parameters()),
    }
    if test:
        scores = SampleScores(training.model.method.task)
        tested = Samples.read(data, Split.TEST)
        training.model.evaluate(tested, CLEAN, batch_size=BATCH, scores=scores)
        columns = scores.columns("clean")
        with replacing(out / f"{name}.npz") as partial_file, partial_file.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, ids=scores.sample_ids, **columns)
    write_atomically(kept, json.dumps(row))
    return row


def _arm(
    data: Path, out: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Figures of the test split over the seeds of one model, and what training it took."""
    return {
        "test": _figures(data, out, names),
        "cpu_seconds": sum(row["cpu_seconds"] for row in rows) / len(rows),
        "parameters": rows[0]["parameters"],
    }


def _figures(
    data: Path, out: Path, names: Sequence[str], less: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Metric to its mean over models with the interval over patients, and the model's own values.

    With `less`, of the difference from the mean over these models.
    """
    table = read_table(Folder(data), Split.TEST, ["sample_id", "patient_id"])
    patient = dict(zip(*(table[c].to_pylist() for c in ("sample_id", "patient_id")), strict=True))
    columns = [_columns(out, name) for name in names]
    others = [_columns(out, name) for name in less]
    clusters = [patient[str(i)] for i in columns[0]["ids"]]
    task = task_named(TaskName.SEGMENTATION if "dice" in columns[0] else TaskName.CLASSIFICATION)
    estimates = {}
    for metric in SHOWN[str(task)]:
        make = task.statistics[metric]
        mine, theirs = ([make(c) for c in some] for some in (columns, others))
        once = np.ones((1, len(clusters)))
        whole: Estimate = bootstrap(partial(_difference, mine, theirs), clusters)
        values = [float(part(once)[0]) for part in mine]
        estimates[metric] = {**asdict(whole), "seeds": values, "deviation": summarise(values).std}
    return estimates


def _difference(
    mine: Sequence[Callable[[Floats], Floats]],
    theirs: Sequence[Callable[[Floats], Floats]],
    weights: Floats,
) -> Floats:
    mean = np.mean([part(weights) for part in mine], axis=0)
    return mean - np.mean([part(weights) for part in theirs], axis=0) if theirs else mean


def _columns(out: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(out / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def document(results: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/results/anchors.md."""
    parts = [
        "# How good the models are",
        f"Made by `benchmarks/anchors.py` with trustsweep {VERSION}, torch {torch.__version__} on "
        f"{platform.machine()}; do not edit.",
        "\n".join(["## What does not hold, and what does", "", *_verdicts(results)]),
        "Every figure is of the test split and the mean over seeds that no search used; in "
        "brackets its 95 % interval, patients (of MedMNIST: images) redrawn, and ± the standard "
        "deviation over the seeds. The test split was looked at once, after everything was "
        "chosen on validation. Differences are of the same patients, and not corrected for how "
        "many there are.",
    ]
    for result in results.values():
        parts += _section(result)
    return "\n\n".join(parts) + "\n"


def _verdicts(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for result in results.values():
        if result["task"] == "classification":
            test = result["arms"]["found"]["test"]
            for metric, bar in result["bar"].items():
                value = test[metric]["value"]
                verdict = "reached" if value >= bar else "**missed**"
                lines.append(
                    f"- {result['title']}: {SHOWN['classification'][metric]} {value:.3f}, aimed at "
                    f"{bar:.3f}: {verdict}."
                )
            continue
        for arm, row in result["arms"].items():
            if arm == OWN:
                continue
            for metric in ("dice_lesion", "dice"):
                gap = row["above_own"][metric]
                verdict = "not significantly different from"
                if gap["low"] > 0:
                    verdict = "significantly better than"
                elif gap["high"] < 0:
                    verdict = "significantly worse than"
                lines.append(
                    f"- {result['title']}: {arm} is {verdict} {OWN} by "
                    f"{SHOWN['segmentation'][metric]} ({gap['value']:+.3f}, {gap['low']:+.3f} to "
                    f"{gap['high']:+.3f})."
                )
    # What speaks against this project comes first.
    return sorted(lines, key=lambda line: "missed" not in line and "better" not in line)


def _section(result: Mapping[str, Any]) -> list[str]:
    shown = SHOWN[result["task"]]
    head = ["model", *shown.values(), "parameters", "CPU s a training"]
    rows = [[name, *_cells(row, shown)] for name, row in result["arms"].items()]
    counts = ", ".join(f"{count} {split}" for split, count in result["counts"].items())
    texts = [f"## {result['title']}"]
    if result["task"] == "classification":
        for name, auroc, accuracy in result["published"]:
            rows.append([name, f"{auroc:.3f}", f"{accuracy:.3f}", *("",) * (len(head) - 3)])
        spread = sorted(result["spread"])
        texts.append(
            f"Images: {counts}. A search of {result['trials']} trials on `clean.auroc` of the "
            f"validation split ({result['cpu_seconds'] / 60:.0f} CPU minutes; best "
            f"{spread[-1]:.4f}, median {spread[len(spread) // 2]:.4f}, worst "
            f"{spread[0]:.4f}) chose:"
        )
        config = {k: v for k, v in result["chosen"].items() if k not in HELD}
        texts.append("`" + ", ".join(f"{k} {_plain(v)}" for k, v in config.items()) + "`")
    else:
        texts.append(
            f"Images: {counts}. {result['epochs']} epochs each, of the same recipe: "
            + ", ".join(f"{k} {_plain(v)}" for k, v in RECIPE.items())
            + "."
        )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    note = [result["note"]] if result.get("note") else []
    return [*texts, "\n".join(lines), *note]


def _cells(row: Mapping[str, Any], shown: Mapping[str, str]) -> list[str]:
    figures = [
        f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f}) ± {f['deviation']:.3f}"
        for f in (row["test"][metric] for metric in shown)
    ]
    return [*figures, f"{row['parameters']:,}", f"{row['cpu_seconds']:.0f}"]


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
