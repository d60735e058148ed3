"""The U-Net's decoder against MONAI's of transposed convolutions: Dice, maps and time.

Trains both under the same seeds, configs and splits, on infection and lung masks of the same real
X-rays. Writes the table of docs/results/decoder.md, with paired tests, and its picture of maps,
of generated X-rays as well.

    python benchmarks/decoder.py --data FOLDER --out runs/decoder [--json FILE] [--quick]

FOLDER holds the data sets as published. A second call with the same --out trains what is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from checkerboard import nyquist_share, smooth_unet, transposed_unet, truth_shares
from matplotlib.figure import Figure
from torch import Tensor, nn

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Batch, Manifest, Split, TaskName
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.statistics.inference import holm, paired_t_test, summarise
from trustsweep.distributed.version import VERSION
from trustsweep.distributed.workers.fidelity import CLEAN
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.registry import METHODS

Decoder = Callable[[Manifest, int, int], nn.Module]

#: The peer first.
DECODERS: dict[str, Decoder] = {"transposed": transposed_unet, "interpolated": smooth_unet}
FORMS = {"unet": "classical", "evidential-unet": "evidential"}
METRICS = {"dice": "Dice, per image", "dice_micro": "Dice, micro", "ece_region": "ECE, region"}
ROWS, COST, PICTURE = "rows.jsonl", "cost.json", "decoder.png"
WIDTH, BATCH = 16, 8
#: Pixels of the picture along a map, a multiple of 128, and between two of them.
DRAWN, GAP = 256, 24


@dataclass(frozen=True)
class DecoderData:
    """A data set: its layout, published folder (None for generated) and options."""

    layout: str
    folder: str | None
    options: Mapping[str, Any] = field(default_factory=dict)


SETS = {
    "infection": DecoderData("qata-cov19", "covid19_cxr_qata_layout/QaTa-COV19-v2"),
    "lung": DecoderData("covid-cxr-segmentations", "covid19_cxr_segmentations", {"target": "lung"}),
    "phantoms": DecoderData("phantoms", None, {"count": 100}),
}


class Cell(NamedTuple):
    """What both decoders are trained on."""

    data: str
    form: str
    regime: str


@dataclass(frozen=True)
class Protocol:
    """How much is trained, and what is drawn."""

    cells: tuple[Cell, ...]
    seeds: int
    epochs: int
    size: int
    #: (data, size, epochs) of the picture's networks.
    drawn: tuple[tuple[str, int, int], ...]
    timed: tuple[tuple[int, int], ...]
    rounds: int

    def under(self, regimes: Sequence[str]) -> Protocol:
        """The same for each of these regimes of adversarial training."""
        cells = tuple(cell._replace(regime=r) for r in regimes for cell in self.cells)
        return replace(self, cells=cells)


FULL = Protocol(
    cells=tuple(Cell(data, form, "none") for form in FORMS for data in ("infection", "lung")),
    seeds=5,
    epochs=30,
    size=64,
    drawn=tuple(
        (data, size, epochs)
        for data in ("phantoms", "lung", "infection")
        for size, epochs in ((64, 30), (128, 12))
    ),
    timed=((8, 64), (16, 64), (8, 128), (16, 128)),
    rounds=30,
)
QUICK = Protocol(
    cells=(Cell("phantoms", "unet", "none"),),
    seeds=2,
    epochs=1,
    size=32,
    drawn=(("phantoms", 32, 1),),
    timed=((4, 32),),
    rounds=3,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the published folders; not for --quick")
    parser.add_argument("--out", type=Path, required=True, help="prepared data and figures")
    parser.add_argument("--table", type=Path, default=Path("docs/results/decoder.md"))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--regimes", nargs="+", default=["none"], help="of adversarial training")
    parser.add_argument("--quick", action="store_true", help="generated images, a minute")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("--data is needed, the folder of the published data sets")
    torch.set_num_threads(1)
    protocol = (QUICK if arguments.quick else FULL).under(arguments.regimes)
    work = _Work(protocol, arguments.data, arguments.out)
    rows, cost = work.rows(), work.cost()
    arguments.table.parent.mkdir(parents=True, exist_ok=True)
    work.picture(arguments.table.parent / PICTURE)
    tests = _tests(rows)
    text = _document(protocol, rows, tests, cost)
    write_atomically(arguments.table, text)
    print(text)
    if arguments.json:
        content = {"rows": rows, "tests": tests, "cost": cost}
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")


class _Work:
    """What a protocol asks for, each part done once and kept in `out`."""

    def __init__(self, protocol: Protocol, published: Path | None, out: Path) -> None:
        self.protocol, self.published, self.out = protocol, published, out
        out.mkdir(parents=True, exist_ok=True)

    def rows(self) -> list[dict[str, Any]]:
        """One a training: its names, and figures of the validation and test split."""
        path = self.out / ROWS
        rows = [json.loads(line) for line in path.open()] if path.is_file() else []
        done = {(*_cell(row), row["seed"], row["decoder"]) for row in rows}
        for cell in self.protocol.cells:
            for seed in range(self.protocol.seeds):
                for decoder in DECODERS:
                    if (*cell, seed, decoder) in done:
                        continue
                    names = {**cell._asdict(), "seed": seed, "decoder": decoder}
                    row = {**names, **self._trained(cell, seed, decoder)}
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    rows.append(row)
        return [row for row in rows if _cell(row) in self.protocol.cells]

    def _trained(self, cell: Cell, seed: int, decoder: str) -> dict[str, Any]:
        folder = self._prepared(cell.data, self.protocol.size)
        test = Samples.read(folder, Split.TEST)
        images = test.batch(range(len(test)))
        training = self._training(folder, cell, seed, decoder, self.protocol.epochs)
        untrained = _shares(training, images)
        self._train(training, folder)
        figures: dict[str, Any] = {
            "parameters": sum(p.numel() for p in training.network.parameters()),
            "untrained": untrained,
            "trained": _shares(training, images),
            "truth": truth_shares(_truth(images)),
        }
        for split in (Split.VAL, Split.TEST):
            samples = Samples.read(folder, split)
            values = training.evaluate(samples, CLEAN, batch_size=BATCH).compute()
            figures[str(split)] = {name: values[f"clean.{name}"] for name in METRICS}
        return figures

    def _training(self, folder: Path, cell: Cell, seed: int, decoder: str, epochs: int) -> Training:
        changes = {
            "epochs": epochs,
            "batch_size": BATCH,
            "width": WIDTH,
            "regime": cell.regime,
            "seed": seed,
        }
        config = Space([cell.form], changes).defaults(cell.form)
        manifest = Manifest.load(folder)
        outputs = METHODS[cell.form](config, manifest).outputs
        make = partial(DECODERS[decoder], manifest, WIDTH, outputs)
        return Training(config, manifest, EvaluationPlan(), network=make)

    def _train(self, training: Training, folder: Path) -> None:
        train = Samples.read(folder, Split.TRAIN)
        for _ in range(training.config["epochs"]):
            training.epoch(train)

    def _prepared(self, data: str, size: int) -> Path:
        source, folder = SETS[data], self.out / "data" / f"{data}-{size}"
        if not (folder / MANIFEST_NAME).is_file():
            raw = None
            if source.folder is not None:
                assert self.published is not None
                raw = self.published / source.folder
            prepare(raw, source.layout, folder, size=size, **source.options)
        return folder

    def cost(self) -> list[dict[str, Any]]:
        """Forward and backward of a batch, in pairs of rounds; the medians of times and ratios."""
        path = self.out / COST
        if not path.is_file():
            rows = [_cost(*case, self.protocol.rounds) for case in self.protocol.timed]
            write_atomically(path, json.dumps(rows))
        costs: list[dict[str, Any]] = json.loads(path.read_text())
        return costs

    def picture(self, path: Path) -> None:
        """Probability and uncertainty of evidential networks, both decoders side by side."""
        rows = [
            (f"{data}, {size} px, {epochs} epochs", self._maps(data, size, epochs))
            for data, size, epochs in self.protocol.drawn
        ]
        names = list(rows[0][1])
        # A pixel of a map is a whole number of the picture's, or drawing makes a grid of its own.
        width, height = len(names) * (DRAWN + GAP), len(rows) * (DRAWN + GAP) + GAP
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        for place, (title, maps) in enumerate(rows):
            for column, name in enumerate(names):
                left, top = column * (DRAWN + GAP), GAP + place * (DRAWN + GAP)
                corner = (left / width, 1 - (top + DRAWN) / height)
                ax = figure.add_axes((*corner, DRAWN / width, DRAWN / height))
                colours, most = ("magma", None) if "vacuity" in name else ("gray", 1)
                ax.imshow(maps[name], cmap=colours, vmin=0, vmax=most, interpolation="nearest")
                ax.set_axis_off()
                ax.set_title(title if column == 0 else name, fontsize=9, pad=4)
        figure.savefig(path)

    def _maps(self, data: str, size: int, epochs: int) -> dict[str, np.ndarray]:
        """Of the test image with the largest lesion, by title; networks of seed 0."""
        path = self.out / f"maps-{data}-{size}.npz"
        if not path.is_file():
            folder = self._prepared(data, size)
            test = Samples.read(folder, Split.TEST)
            areas = _truth(test.batch(range(len(test)))).flatten(1).sum(1)
            batch = test.batch([int(areas.argmax())])
            maps: dict[str, np.ndarray] = {}
            for decoder in DECODERS:
                cell = Cell(data, "evidential-unet", "none")
                training = self._training(folder, cell, 0, decoder, epochs)
                self._train(training, folder)
                shown = training.model.panel(batch, 0.0)
                maps |= {"image": shown["image"][0], "truth": shown["mask"][0]}
                maps[f"probability, {decoder}"] = shown["probability"][0]
                maps[f"vacuity, {decoder}"] = shown["uncertainty"][0]
            np.savez(path, **maps)
        with np.load(path) as stored:
            names = ["image", "truth"]
            names += [f"{kind}, {d}" for kind in ("probability", "vacuity") for d in DECODERS]
            return {name: stored[name].astype(np.float32) for name in names}


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(*(row[name] for name in Cell._fields))


def _truth(batch: Batch) -> Tensor:
    """(n, H, W)."""
    if batch.mask is None:
        raise ValueError("segmentation needs batch.mask")
    return batch.mask[:, 0].float()


def _shares(training: Training, batch: Batch) -> dict[str, float]:
    """Nyquist shares of the maps of a batch, and of an image that does not vary."""
    constant = batch.select([0]).with_image(torch.full_like(batch.image[:1], 0.5))
    shares = {}
    for name, images in {"": batch, "constant_": constant}.items():
        prediction = training.model.predict(images)
        shares[f"{name}probability"] = nyquist_share(prediction.probability[:, 0])
        shares[f"{name}uncertainty"] = nyquist_share(next(iter(prediction.uncertainty.values())))
    return shares


def _cost(width: int, size: int, rounds: int) -> dict[str, Any]:
    manifest = Manifest(
        name="benchmark",
        tasks=(TaskName.SEGMENTATION,),
        image_shape=(1, size, size),
        image_scale=1.0,
        classes=("background", "lesion"),
        mean=(0.5,),
        std=(0.3,),
        split_counts={},
        columns={},
        fingerprint="",
    )
    networks = [make(manifest, width, 1) for make in DECODERS.values()]
    # An attack differentiates with respect to the image as well.
    image = torch.rand(BATCH, 1, size, size, requires_grad=True)
    times = [[_timed(network, image) for network in networks] for _ in range(rounds + 2)][2:]
    medians = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return {
        "width": width,
        "size": size,
        "parameters": [sum(p.numel() for p in network.parameters()) for network in networks],
        "ms": dict(zip(DECODERS, medians, strict=True)),
        "ratio": statistics.median(new / old for old, new in times),
    }


def _timed(network: nn.Module, image: Tensor) -> float:
    began = time.perf_counter()
    network(image).square().mean().backward()
    return time.perf_counter() - began


def _cells(rows: list[dict[str, Any]]) -> Iterator[tuple[Cell, dict[str, list[dict[str, Any]]]]]:
    """Each cell that was trained, and its rows by decoder, in the order of seeds."""
    cells: dict[Cell, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: row["seed"]):
        cells[_cell(row)][row["decoder"]].append(row)
    yield from cells.items()


def _tests(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Interpolated less transposed on the test split, paired by seed; Holm over all of them."""
    tests = []
    for cell, by_decoder in _cells(rows):
        for metric in METRICS:
            old, new = ([r["test"][metric] for r in by_decoder[d]] for d in DECODERS)
            test = paired_t_test(new, old)
            means = dict(zip(DECODERS, (summarise(old).mean, summarise(new).mean), strict=True))
            tests.append({**cell._asdict(), "metric": metric, **means, **asdict(test)})
    for entry, adjusted in zip(tests, holm([t["p"] for t in tests]), strict=True):
        entry["p_holm"] = float(adjusted)
    return tests


def _document(
    protocol: Protocol,
    rows: list[dict[str, Any]],
    tests: list[dict[str, Any]],
    cost: list[dict[str, Any]],
) -> str:
    compared = [
        f"| {t['data']} | {FORMS[t['form']]} | {t['regime']} | {METRICS[t['metric']]} | "
        f"{t['transposed']:.3f} | {t['interpolated']:.3f} | "
        f"{t['difference']:+.3f} ({t['low']:+.3f} to {t['high']:+.3f}) | "
        f"{_p(t['p'])} | {_p(t['p_holm'])} |"
        for t in tests
    ]
    grids = [
        f"| {cell.data} | {FORMS[cell.form]} | {cell.regime} | {kind} | {cells} |"
        for cell, by_decoder in _cells(rows)
        for kind in ("probability", "uncertainty")
        for cells in [" | ".join(_grid(by_decoder, kind))]
    ]
    timed = [
        f"| {c['width']} | {c['size']} px | {c['parameters'][0]:,} | {c['parameters'][1]:,} | "
        f"{c['ms']['transposed']:.1f} | {c['ms']['interpolated']:.1f} | {c['ratio']:.2f} |"
        for c in cost
    ]
    dice = [t for t in tests if t["metric"] != "ece_region"]
    fallen = [t for t in dice if t["difference"] < 0]
    raised = [t for t in tests if t["metric"] == "ece_region" and t["difference"] > 0]
    worst = min(dice, key=lambda t: t["difference"])
    verdict = (
        f"Dice is lower in {len(fallen)} of {len(dice)} comparisons, "
        f"{sum(t['p_holm'] < 0.05 for t in fallen)} of them significant at 5 % after Holm's "
        f"correction. The least difference is {worst['difference']:+.3f}. ECE is higher in "
        f"{len(raised)} of {len(tests) - len(dice)}, "
        f"{sum(t['p_holm'] < 0.05 for t in raised)} of them significant."
    )
    return f"""# The U-Net's decoder: interpolation against transposed convolutions

Made by `benchmarks/decoder.py` with trustsweep {VERSION}, torch {torch.__version__} on
{platform.machine()}; do not edit.

`transposed` is MONAI's U-Net, whose transposed convolutions of stride 2 leave a grid of 2 pixels
in every map; `interpolated` has a convolution and linear interpolation in their place. Both have
the same parameters, configs, splits and seeds: {protocol.size} px, epochs {protocol.epochs}, batch
{BATCH}, width {WIDTH}, seeds 0 to {protocol.seeds - 1}.

![Maps of both decoders](decoder.png)

*Evidential networks of seed 0, trained without attack; the test image with the largest lesion.*

## Dice and calibration

Test split, means over seeds; difference with its 95 % interval, paired by seed. Lower is better
for ECE.

| data | model | regime | figure | transposed | interpolated | difference | p | p (Holm) |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(compared)}

{verdict}

## Power at the Nyquist frequency

The share of the maps' spectral power at the Nyquist frequency of either axis, under a Hann window,
medians over seeds: test images before and after training, and a constant image after training.
Beside them the truth q smoothed by one pixel, for uncertainty q(1 - q). The uncertainty p(1 - p) of
a confident network is a line about a pixel wide along the outline, which has power at every
frequency: there the share may pass the truth's without any grid.

| data | model | regime | map | truth | {_both("before")} | {_both("after")} | {_both("constant")} |
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(grids)}

## Time

Forward and backward of a batch of {BATCH} on one CPU thread, in ms; the ratio is the median of
paired rounds.

| width | image | parameters, transposed | interpolated | ms, transposed | interpolated | ratio |
|---|---|---|---|---|---|---|
{chr(10).join(timed)}
"""


def _both(when: str) -> str:
    return " | ".join(f"{when}, {decoder}" for decoder in DECODERS)


def _grid(by_decoder: Mapping[str, list[dict[str, Any]]], kind: str) -> Iterator[str]:
    """The cells of a row: the truth's share, then each decoder's."""
    stages = (("untrained", kind), ("trained", kind), ("trained", f"constant_{kind}"))
    yield f"{by_decoder['transposed'][0]['truth'][kind]:.1e}"
    for stage, name in stages:
        for decoder in DECODERS:
            yield f"{statistics.median(r[stage][name] for r in by_decoder[decoder]):.1e}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    main()
