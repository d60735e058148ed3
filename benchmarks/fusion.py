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

import json
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparing.figures import rows
from comparing.models import Unit, candidates
from comparing.protocol import Budget, ComparisonResults, DataSource, parser, pool, read, run
from fused.claims import evaluate_claims
from fused.document import document
from fused.figures import BASELINES, CARD_COLUMNS, COLUMNS, METHOD
from fused.models import CHOSEN_BY, evaluate_unit

from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.search_spaces.study import load

TABLE = Path(__file__).parents[1] / "docs" / "results" / "fusion.md"


@dataclass(frozen=True)
class FusionData(DataSource):
    """A data set; `noise` is the corruption of its values or images."""

    noise: str = "gaussian-noise"
    ablated: bool = True


SETS = {
    "heart": FusionData(
        "uci-heart", "uci_heart_disease", 32, {"ood_site": "va"}, noise="value-noise"
    ),
    "icu": FusionData(
        "physionet2012", "physionet_challenge2012", 32, epochs=32, noise="value-noise"
    ),
    "phantoms": FusionData("phantoms", None, 48, {"count": 800, "ood_site": "portable"}),
    "lgg": FusionData(
        "lgg", "lgg-mri-segmentation/kaggle_3m", 64, {"ood_site": "HT"}, ablated=False
    ),
    "hannover": FusionData("hannover-covid", "hannover_covid", 64, ablated=False),
}
QUICK = {"phantoms": FusionData("phantoms", None, 16, {"count": 90}, epochs=1)}
QUICK_BUDGET = Budget(folds=3, candidates=2, seeds=1)


def main() -> None:
    asked = parser(__doc__, list(SETS))
    arguments = asked.parse_args()
    sources = QUICK if arguments.quick else {name: SETS[name] for name in arguments.sets}
    budget = QUICK_BUDGET if arguments.quick else Budget()
    if arguments.data is None and any(source.folder for source in sources.values()):
        asked.error("--data is needed: the published folders")
    with pool(arguments.jobs) as workers:
        by_data = {
            name: _compare(name, source, budget, arguments.data, arguments.out, workers)
            for name, source in sources.items()
        }
    claims = evaluate_claims(
        {name: one.tuned for name, one in by_data.items()},
        {name: one.sizes for name, one in by_data.items()},
    )
    text = document(by_data, claims, budget.candidates, budget.seeds)
    table = arguments.out / "fusion.md" if arguments.quick else TABLE
    table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        content = {
            "sets": {
                name: {
                    "fingerprints": [m.fingerprint for m in one.manifests],
                    "tuned": rows(one.tuned, COLUMNS, CARD_COLUMNS),
                    "defaults": rows(one.defaults, COLUMNS, CARD_COLUMNS),
                }
                for name, one in by_data.items()
            },
            "claims": [claim.as_json() for claim in claims],
        }
        write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")


def _compare(
    name: str,
    source: FusionData,
    budget: Budget,
    published: Path | None,
    out: Path,
    workers: Executor,
) -> ComparisonResults:
    """Every model of one data set, trained and evaluated unless that was done."""
    data = source.prepared(name, budget.folds, published, out)
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
        place = out / "models" / name / fold.name / arm / kept
        return Unit(fold, place, config, "fusion", overrides, (CHOSEN_BY,))

    def drawn(arm: str, fold: int) -> list[dict[str, Any]]:
        named = study.variants.get(arm, {})
        return candidates("fusion", arms[arm], named, overrides, budget.candidates, fold)

    units = run(data, drawn, compared, arms, unit, evaluate_unit, budget.seeds, workers)
    manifests = [Manifest.load(fold) for fold in data]
    return ComparisonResults(manifests, read(units.tuned), read(units.defaults), units.moved)


if __name__ == "__main__":
    main()
