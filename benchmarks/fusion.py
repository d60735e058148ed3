"""Reliability-aware fusion against its baselines on four data sets, and the proposal's four claims.

Prepares each data set, runs the study `fusion-arms` on it (five seeds of every model and ablation,
judged on the test split and on a site that was held out), and writes docs/results/fusion.md.

    python benchmarks/fusion.py --data FOLDER --out runs/fusion [--sets heart ...] [--json FILE]
        [--quick]

FOLDER holds the data sets as published; --quick needs none. A second call with the same --out goes
on with what is missing, and else only writes the tables again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fused.claims import judge_claims
from fused.document import document
from fused.figures import BASELINES, Arm, rows

from data_pipelines.machine import write_atomically
from data_pipelines.prepare import prepare
from data_pipelines.schema import MANIFEST_NAME, Manifest
from distributed.run import STUDY
from distributed.run_folder import read_run
from distributed.sweep import resume, sweep
from search_spaces.study import load


@dataclass(frozen=True)
class Source:
    """A data set: its published folder, what is prepared of it, and what is trained on it."""

    layout: str
    folder: str | None
    size: int
    noise: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 16
    ablated: bool = True


SETS = {
    "phantoms": Source(
        "phantoms", None, 48, "gaussian-noise", {"count": 800, "ood_site": "portable"}
    ),
    "heart": Source("uci-heart", "uci_heart_disease", 32, "value-noise", {"ood_site": "va"}),
    "icu": Source("physionet2012", "physionet_challenge2012", 32, "value-noise", epochs=32),
    "lgg": Source(
        "lgg",
        "lgg-mri-segmentation/kaggle_3m",
        64,
        "gaussian-noise",
        {"ood_site": "HT"},
        ablated=False,
    ),
}

#: Generated and small, two seeds of an epoch each: to see that everything runs.
QUICK = Source(
    "phantoms", None, 32, "gaussian-noise", {"count": 96, "ood_site": "portable"}, 1, False
)
TABLE = Path("docs/results/fusion.md")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the published folders; not for --quick")
    parser.add_argument("--out", type=Path, required=True, help="prepared data and runs")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--table", type=Path, help=f"instead of {TABLE}")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="generated data, minutes")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("--data is needed: the folder of the published data sets")
    sets = {"phantoms": QUICK} if arguments.quick else {name: SETS[name] for name in arguments.sets}
    found = {
        name: _run(name, source, arguments.data, arguments.out, seeds=2 if arguments.quick else 5)
        for name, source in sets.items()
    }
    manifests = {name: Manifest.load(arguments.out / "data" / name) for name in found}
    claims = judge_claims(found)
    text = document(found, manifests, claims)
    table = arguments.table or (arguments.out / TABLE.name if arguments.quick else TABLE)
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        figures = {name: rows(arms) for name, arms in found.items()}
        content = {"sets": figures, "claims": [claim._asdict() for claim in claims]}
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")


def _run(
    name: str, source: Source, published: Path | None, out: Path, *, seeds: int
) -> dict[str, Arm]:
    """The finished study on one data set, by name of the model or ablation."""
    data, folder = out / "data" / name, out / name
    if not (data / MANIFEST_NAME).is_file():
        raw = published / source.folder if published and source.folder else None
        prepare(raw, source.layout, data, size=source.size, **source.options)
    corruptions = f"[mixed-quality, modality-drop, {source.noise}]"
    overrides = [
        f"data={data}",
        f"seeds={seeds}",
        f"space.epochs={source.epochs}",
        f"evaluation.corruptions={corruptions}",
    ]
    if not (folder / STUDY).is_file():
        study = load("fusion-arms", overrides)
        if not source.ablated:
            variants = {name: study.variants[name] for name in BASELINES}
            study = study.model_copy(update={"variants": variants})
        sweep(study, folder)
    elif not all(card.is_file() for cards in _cards(folder).values() for card in cards):
        resume(folder)
    arms: dict[str, Arm] = {}
    for arm, paths in _cards(folder).items():
        cards = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        arms[arm] = Arm({card["config"]["seed"]: card for card in cards})
    return arms


def _cards(folder: Path) -> dict[str, list[Path]]:
    """Where the judge's findings are, or will be, by name of the model or ablation."""
    references: dict[str, list[str]] = read_run(folder).summary["references"]
    return {
        name: [folder / "evaluation" / f"{identity}.json" for identity in ids]
        for name, ids in references.items()
    }


if __name__ == "__main__":
    main()
