"""Reliability-aware fusion against its baselines, and the four claims of its proposal.

On each data set every method gets the same cross-validation, the same encoders, epochs and training
corruptions, and the same small tuning budget: candidates drawn from its space beside its defaults,
chosen on the validation split of each fold by the NLL where modalities are worse or missing. Every
patient is a test patient of one fold. Writes docs/results/fusion.md.

    python benchmarks/fusion.py --data FOLDER --out runs/fusion [--sets heart ...] [--jobs N]
        [--json FILE] [--quick]

FOLDER holds the data sets as published. Every model is kept: a second call goes on with what is
missing. --quick runs tiny networks on generated data.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fused.claims import judge_claims
from fused.document import Told, document
from fused.figures import BASELINES, METHOD, Arm, rows
from fused.models import Unit, candidates, judged, read_judged, validated

from data_pipelines.machine import write_atomically
from data_pipelines.prepare import prepare
from data_pipelines.schema import INDEX_NAME, Manifest
from search_spaces.study import load

TABLE = Path(__file__).parents[1] / "docs" / "results" / "fusion.md"


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


@dataclass(frozen=True)
class Budget:
    """The same for every method.

    Attributes:
        folds: Of the cross-validation.
        candidates: Configurations tried on each fold, the defaults among them.
        seeds: Models of the chosen configuration and of the defaults on each fold.
    """

    folds: int = 5
    candidates: int = 4
    seeds: int = 2


SETS = {
    "heart": Source("uci-heart", "uci_heart_disease", 32, "value-noise", {"ood_site": "va"}),
    "icu": Source("physionet2012", "physionet_challenge2012", 32, "value-noise", epochs=32),
    "phantoms": Source(
        "phantoms", None, 48, "gaussian-noise", {"count": 800, "ood_site": "portable"}
    ),
    "lgg": Source(
        "lgg",
        "lgg-mri-segmentation/kaggle_3m",
        64,
        "gaussian-noise",
        {"ood_site": "HT"},
        ablated=False,
    ),
    "hannover": Source("hannover-covid", "hannover_covid", 64, "gaussian-noise", ablated=False),
}
QUICK = {"phantoms": Source("phantoms", None, 16, "gaussian-noise", {"count": 90}, epochs=1)}
QUICK_BUDGET = Budget(folds=3, candidates=2, seeds=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the published folders")
    parser.add_argument("--out", type=Path, required=True, help="prepared data and models")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="tiny, on generated data")
    arguments = parser.parse_args()
    sources = QUICK if arguments.quick else {name: SETS[name] for name in arguments.sets}
    budget = QUICK_BUDGET if arguments.quick else Budget()
    if arguments.data is None and any(source.folder for source in sources.values()):
        parser.error("--data is needed: the published folders")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as workers:
        told = {
            name: _told(name, source, budget, arguments.data, arguments.out, workers)
            for name, source in sources.items()
        }
    claims = judge_claims(
        {name: one.tuned for name, one in told.items()},
        {name: one.sizes for name, one in told.items()},
    )
    text = document(told, claims, budget.candidates, budget.seeds)
    table = arguments.out / "fusion.md" if arguments.quick else TABLE
    table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        content = {
            "sets": {
                name: {
                    "fingerprints": [m.fingerprint for m in one.manifests],
                    "tuned": rows(one.tuned),
                    "defaults": rows(one.defaults),
                }
                for name, one in told.items()
            },
            "claims": [claim.as_json() for claim in claims],
        }
        write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")


def _told(
    name: str, source: Source, budget: Budget, published: Path | None, out: Path, workers: Executor
) -> Told:
    """Every model of one data set, trained and judged unless that was done."""
    data = _prepared(name, source, budget.folds, published, out)
    overrides = (
        f"space.epochs={source.epochs}",
        f"evaluation.corruptions=[mixed-quality, modality-drop, {source.noise}]",
        "evaluation.severities=[1, 2, 3, 4, 5]",
    )
    study = load("fusion-arms", [f"space.epochs={source.epochs}"])
    configs = study.references()
    compared = [METHOD, *BASELINES]
    arms = {arm: configs[arm] for arm in configs if source.ablated or arm in compared}

    def unit(fold: Path, arm: str, kept: str, config: Mapping[str, Any]) -> Unit:
        return Unit(fold, out / "models" / name / fold.name / arm / kept, config, overrides)

    tried = {
        (fold, arm): [
            unit(fold, arm, f"candidate-{i}", config)
            for i, config in enumerate(
                candidates(
                    arms[arm], study.variants.get(arm, {}), overrides, budget.candidates, number
                )
            )
        ]
        for number, fold in enumerate(data)
        for arm in compared
    }
    flat = [one for units in tried.values() for one in units]
    values = dict(zip((u.kept for u in flat), workers.map(validated, flat), strict=True))
    chosen = {
        key: min(range(len(units)), key=lambda i: values[units[i].kept])
        for key, units in tried.items()
    }
    # None of the seeds that a configuration was chosen under.
    seeds = range(1, 1 + budget.seeds)

    def final(fold: Path, arm: str, index: int, config: Mapping[str, Any]) -> list[Unit]:
        return [
            unit(fold, arm, f"config-{index}-seed-{seed}", {**config, "seed": seed})
            for seed in seeds
        ]

    defaults = {arm: [final(fold, arm, 0, arms[arm]) for fold in data] for arm in arms}
    tuned = {
        arm: [
            final(fold, arm, i, tried[fold, arm][i].config)
            for fold in data
            for i in [chosen[fold, arm]]
        ]
        for arm in compared
    }
    wanted = {
        one.kept: one
        for kind in (defaults, tuned)
        for folds in kind.values()
        for units in folds
        for one in units
    }
    for _ in workers.map(judged, wanted.values()):
        pass

    def read(kind: Mapping[str, list[list[Unit]]]) -> dict[str, Arm]:
        return {
            arm: Arm([[read_judged(one.kept) for one in units] for units in folds])
            for arm, folds in kind.items()
        }

    manifests = [Manifest.load(fold) for fold in data]
    return Told(manifests, read(tuned), read(defaults), {k: bool(i) for k, i in _by_arm(chosen)})


def _by_arm(chosen: Mapping[tuple[Path, str], int]) -> list[tuple[tuple[str, str], int]]:
    return [((arm, fold.name), index) for (fold, arm), index in chosen.items()]


def _prepared(
    name: str, source: Source, folds: int, published: Path | None, out: Path
) -> list[Path]:
    """The folders of the folds."""
    data = out / "data" / name
    if not (data / INDEX_NAME).is_file():
        raw = published / source.folder if published and source.folder else None
        prepare(raw, source.layout, data, size=source.size, folds=folds, **source.options)
    return [data / f"fold-{i}" for i in range(folds)]


if __name__ == "__main__":
    main()
