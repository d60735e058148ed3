"""Images per second that reach a training step, every image corrupted anew in every epoch.

Several ways in one run, over the same generated images of 128 x 128 in uint8, with the same batch
size and the same corruption (Gaussian noise, severity 3, of every image):

- memory: one tensor in the process, rows by index; the most that one process can do;
- DataLoader 0 / 2: torch's, with so many worker processes;
- Ray Data: `read_parquet(...).map_batches(corrupt).iter_torch_batches(...)`, anew for each epoch,
  as Ray's guide writes it, local shuffle left out, over tensor columns as Ray Data stores them;
- Ray Data, bytes: the same over this project's shards, which keep arrays as bytes of fixed length;
- materialised, resident, streamed: this project's three modes, over its shards.

A round runs some epochs of each way, those of the ways that need no other process turn by turn, so
that whatever else the machine does meets them all. A round has a Ray of its own, and is begun anew
where that loses objects, as it does on a machine too busy to answer it. The first epoch of a round
starts processes and pipelines and is reported apart; the figure is the rate of the others together,
the median over the rounds, and a ratio is the median of the rounds' ratios. Nothing runs ahead for
another way's turn: the stream is closed after its own. Torch has one thread in every process.

    python benchmarks/input_pipeline.py --json docs/results/input_pipeline.json \\
        --table docs/results/input_pipeline.md [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from ray.data.dataset import MaterializedDataset
from ray.exceptions import RayError
from torch.utils.data import DataLoader, Dataset

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import load_manifest, write_split
from trustsweep.data_pipelines.corruptions.suite import TrainingCorruption
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Batch, Manifest, Split
from trustsweep.data_pipelines.streams import Resident, Samples, Streamed, materialise
from trustsweep.data_pipelines.tensors import described, packed, shaped, tensor_field
from trustsweep.distributed.sweep.resources import ray_session

SIDE = 128
SEED = 0
CELLS = (("gaussian-noise", 3),)
DRAWN = 64
GUIDE = "guide"
OURS = ("materialised", "resident", "streamed")
#: Ways whose epochs take turns; a pipeline of processes runs its epochs in a row.
GROUPS = (
    ("memory", "materialised", "resident", "DataLoader 0"),
    ("DataLoader 2",),
    ("Ray Data",),
    ("Ray Data, bytes",),
    ("streamed",),
)

#: An epoch of one way, by its number: yields float32 images on the training device, corrupted.
Epoch = Callable[[int], Iterator[torch.Tensor]]


def write(folder: Path, images: int) -> Manifest:
    """A data set of `images` training images: phantoms, each shifted and mirrored in many ways."""
    drawn = folder / "drawn"
    prepare(None, "phantoms", drawn, size=SIDE, count=DRAWN)
    source = Samples.read(drawn, Split.TRAIN)
    pictures = source.batch(range(len(source))).image
    stored = (pictures * 255).round().to(torch.uint8).numpy()
    image = tensor_field("image", stored[0])
    texts = ("sample_id", "patient_id", "site", "split")
    schema = pa.schema([*((name, pa.string()) for name in texts), image])

    def take(start: int, stop: int) -> pa.Table:
        rows = [_variant(stored, index) for index in range(start, stop)]
        names = [f"image-{index:06d}" for index in range(start, stop)]
        columns = {
            "sample_id": names,
            "patient_id": names,
            "site": ["here"] * len(rows),
            "split": ["train"] * len(rows),
            "image": packed(np.stack(rows), image),
        }
        return pa.table(columns, schema=schema)

    out, guide = folder / "data", folder / GUIDE
    guide.mkdir()
    for number, rows in enumerate(write_split(out, Split.TRAIN, schema, images, take)):
        pq.write_table(shaped(rows), guide / f"{number:05d}.parquet")
    manifest = replace(
        Manifest.load(drawn),
        split_counts={"train": images},
        stored_bytes={"train": images * SIDE * SIDE},
        columns={"image": described(image)},
        groups=(),
        tabular=(),
        modalities=(),
    )
    (out / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return load_manifest(out)


def _variant(stored: np.ndarray, index: int) -> np.ndarray:
    draw = np.random.default_rng((SEED, index))
    image = np.roll(stored[index % len(stored)], tuple(draw.integers(-9, 10, 2)), (1, 2))
    return image[..., ::-1] if draw.random() < 0.5 else image


class Pictures(Dataset):
    """The stored images for torch's loader, which puts batches together with `Corrupting`."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        return index, self._images[index]


class Corrupting:
    """What all ways do to a batch of stored images: scale to [0, 1] and corrupt."""

    def __init__(self, corruption: TrainingCorruption, names: tuple[str, ...]) -> None:
        self._corruption = corruption
        self._names = names
        self.epoch = 0

    def __call__(self, rows: list[tuple[int, np.ndarray]]) -> torch.Tensor:
        indices, images = zip(*rows, strict=True)
        names = tuple(self._names[i] for i in indices)
        return self.corrupted(names, torch.from_numpy(np.stack(images)))

    def corrupted(self, names: tuple[str, ...], stored: torch.Tensor) -> torch.Tensor:
        batch = Batch(sample_id=names, image=stored.float() / 255)
        return self._corruption(batch, self.epoch).image


def ways(
    folder: Path,
    manifest: Manifest,
    batch_size: int,
    device: str,
    shared: MaterializedDataset,
    streamed: Streamed,
    row: int,
) -> dict[str, Epoch]:
    """Each way as a function of the epoch's number."""
    corruption = TrainingCorruption(CELLS, 1.0, SEED, manifest=manifest)
    samples = Samples.from_iterator(shared.iterator(), manifest)
    names = samples.sample_ids
    images = np.stack([samples.chunks[c]["image"][row] for c, row in samples.places])
    streams = {
        "materialised": samples,
        "resident": Resident(samples, device),
        "streamed": streamed,
    }

    def ours(name: str) -> Epoch:
        def run(epoch: int) -> Iterator[torch.Tensor]:
            batches = streams[name].epoch(
                batch_size,
                seed=SEED,
                epoch=epoch,
                transform=corruption,
                epochs=(epoch // row + 1) * row,
            )
            for batch, _ in batches:
                yield batch.image.to(device)

        return run

    by_name = {
        "memory": _memory(torch.from_numpy(images), names, corruption, batch_size, device),
        "DataLoader 0": _loader(images, names, corruption, batch_size, device, workers=0),
        "DataLoader 2": _loader(images, names, corruption, batch_size, device, workers=2),
        "Ray Data": _guide(folder / GUIDE, corruption, batch_size, device),
        "Ray Data, bytes": _guide(folder / "data" / Split.TRAIN, corruption, batch_size, device),
    }
    return by_name | {name: ours(name) for name in OURS}


def _memory(
    images: torch.Tensor,
    names: tuple[str, ...],
    corruption: TrainingCorruption,
    batch_size: int,
    device: str,
) -> Epoch:
    work = Corrupting(corruption, names)
    resident = images.to(device)

    def run(epoch: int) -> Iterator[torch.Tensor]:
        work.epoch = epoch
        order = np.random.default_rng((SEED, epoch)).permutation(len(resident))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            stored = resident.index_select(0, torch.from_numpy(rows).to(device))
            yield work.corrupted(tuple(names[i] for i in rows), stored)

    return run


def _loader(
    images: np.ndarray,
    names: tuple[str, ...],
    corruption: TrainingCorruption,
    batch_size: int,
    device: str,
    workers: int,
) -> Epoch:
    work = Corrupting(corruption, names)
    # Not kept from epoch to epoch, as the workers would keep the epoch's number too; a fork is
    # cheap beside an epoch.
    loader = DataLoader(
        Pictures(images), batch_size, shuffle=True, num_workers=workers, collate_fn=work
    )

    def run(epoch: int) -> Iterator[torch.Tensor]:
        work.epoch = epoch
        for batch in loader:
            yield batch.to(device)

    return run


def _guide(folder: Path, corruption: TrainingCorruption, batch_size: int, device: str) -> Epoch:
    def run(epoch: int) -> Iterator[torch.Tensor]:
        def corrupt(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            work = Corrupting(corruption, ())
            work.epoch = epoch
            stored = torch.from_numpy(_pixels(rows["image"]))
            return {"image": work.corrupted(tuple(rows["sample_id"]), stored).numpy()}

        dataset = ray.data.read_parquet(str(folder)).map_batches(corrupt)
        for batch in dataset.iter_torch_batches(batch_size=batch_size):
            yield batch["image"].to(device)

    return run


def _pixels(column: np.ndarray) -> np.ndarray:
    """(n, 1, SIDE, SIDE), from such a column or from one of bytes."""
    if column.ndim > 1:
        return np.array(column)
    return np.frombuffer(b"".join(column), np.uint8).reshape(-1, 1, SIDE, SIDE).copy()


def seconds(way: Epoch, epoch: int, images: int) -> float:
    """Of one epoch. Raises AssertionError if it was not the whole of it."""
    started = time.perf_counter()
    seen = 0
    checksum = torch.zeros(())
    for batch in way(epoch):
        seen += len(batch)
        checksum = checksum.to(batch.device) + batch[0].mean()
    float(checksum)  # a GPU has done all of it
    assert seen == images, f"{seen} of {images} images"
    return time.perf_counter() - started


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all ways."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates: dict[str, list[float]] = defaultdict(list)
    firsts: dict[str, list[float]] = defaultdict(list)
    repeated = 0
    with tempfile.TemporaryDirectory(prefix="trustsweep-benchmark-") as name:
        folder = Path(name)
        manifest = write(folder, arguments.images)
        for turn in range(arguments.rounds):
            while True:
                try:
                    cpus, took = _round(arguments, folder, manifest, device, turn)
                    break
                except (RayError, ConnectionError) as error:
                    # A node of a machine that is too busy to answer counts as dead, and its objects
                    # as lost; that says nothing of the ways.
                    repeated += 1
                    if repeated > arguments.repeats:
                        raise
                    print(f"round {turn} begins anew: {type(error).__name__}", flush=True)
            for way, (first, *others) in took.items():
                firsts[way].append(arguments.images / first)
                rates[way].append(arguments.images * len(others) / sum(others))
    rows = [
        {
            "way": way,
            "images_per_second": statistics.median(values),
            "least": min(values),
            "most": max(values),
            "first_epochs": statistics.median(firsts[way]),
            "very_first_epoch": firsts[way][0],
        }
        for way, values in rates.items()
    ]
    return {
        "images": arguments.images,
        "shape": [1, SIDE, SIDE],
        "batch_size": arguments.batch_size,
        "corruption": [*CELLS[0], "every image"],
        "rounds": arguments.rounds,
        "epochs": arguments.epochs,
        "repeated": repeated,
        "cpus": cpus,
        "device": device,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, Ray {ray.__version__}",
        "rows": rows,
        "targets": targets(rates),
    }


def _round(
    arguments: argparse.Namespace, folder: Path, manifest: Manifest, device: str, turn: int
) -> tuple[int, dict[str, list[float]]]:
    """The CPUs of a Ray of its own, and each way's seconds of every epoch of a round."""
    row = arguments.epochs
    with ExitStack() as ends:
        ends.enter_context(ray_session())
        cpus = int(ray.cluster_resources()["CPU"])
        streamed = Streamed(folder / "data", Split.TRAIN, manifest, tasks=max(2, 2 * (cpus - 1)))
        ends.callback(streamed.close)  # before Ray ends
        # Held, as what nobody holds is freed.
        shared = materialise(folder / "data", [Split.TRAIN])[Split.TRAIN]
        by_name = ways(folder, manifest, arguments.batch_size, device, shared, streamed, row)
        took: dict[str, list[float]] = {way: [] for way in by_name}
        for group in GROUPS:
            for epoch in range(turn * row, (turn + 1) * row):
                for way in group:
                    took[way].append(seconds(by_name[way], epoch, arguments.images))
            streamed.close()
            for way in group:
                rate = arguments.images * (row - 1) / sum(took[way][1:])
                print(f"round {turn}: {way:<16}{rate:>8.0f} images/s", flush=True)
    return cpus, took


def targets(rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """What the modes are held to."""
    wanted = [
        ("materialised", "memory", 0.9),
        ("resident", "memory", 0.9),
        ("streamed", "Ray Data", 2.0),
    ]
    rows = []
    for mode, rival, target in wanted:
        rounds = zip(rates[mode], rates[rival], strict=True)
        ratio = statistics.median(mine / theirs for mine, theirs in rounds)
        rows.append(
            {
                "mode": mode,
                "against": rival,
                "ratio": ratio,
                "target": target,
                "reached": ratio >= target,
            }
        )
    return rows


def table(figures: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [
        f"{figures['images']:,} images of {SIDE} x {SIDE} (uint8), batches of "
        f"{figures['batch_size']}, Gaussian noise of severity 3 on every image, "
        f"{figures['cpus']} CPUs, training device {figures['device']}; {figures['machine']}.",
        "",
        f"Images/s over the epochs after the first of a round's {figures['epochs']}, median of "
        f"{figures['rounds']} rounds; the first epochs of the rounds, and of all, apart. A ratio "
        f"is the median of the rounds' ratios. Rounds begun anew: {figures['repeated']}.",
        "",
        "| way | images/s | least to most | first epochs | very first |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['way']} | {r['images_per_second']:,.0f} | {r['least']:,.0f} to {r['most']:,.0f} "
        f"| {r['first_epochs']:,.0f} | {r['very_first_epoch']:,.0f} |"
        for r in figures["rows"]
    ]
    lines += ["", "| mode | against | ratio | target | |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {t['mode']} | {t['against']} | {t['ratio']:.2f} | {t['target']:g} "
        f"| {'reached' if t['reached'] else 'missed'} |"
        for t in figures["targets"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--epochs", type=int, default=4, help="of a turn, the first apart")
    parser.add_argument(
        "--repeats", type=int, default=5, help="rounds begun anew at most where Ray loses its node"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--table", type=Path, help="write the table here too")
    parser.add_argument("--quick", action="store_true", help="a round of few images")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.epochs = 128, 1, 2
    if arguments.epochs < 2:
        parser.error("--epochs is at least 2, as the first is reported apart")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that Ray and torch start
    torch.set_num_threads(1)
    figures = measure(arguments)
    text = table(figures)
    print(f"\n{text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.table:
        arguments.table.write_text(f"# Input pipeline\n\n{text}")


if __name__ == "__main__":
    main()
