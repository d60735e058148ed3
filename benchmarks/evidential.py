"""Evidential segmentation, and adversarial training guided by uncertainty, against what is cheaper.

On each data set every arm gets the same cross-validation by patient, network, epochs and batches,
and the same small tuning budget: candidates drawn from what its method brings beside its defaults,
chosen on the validation split of each fold by the Brier score of attacked and corrupted images.
Every patient is a test patient of one fold. Writes docs/results/evidential.md.

    python benchmarks/evidential.py --data FOLDER --out runs/evidential [--sets xrays mri]
        [--jobs N] [--json FILE] [--quick]

FOLDER holds the data sets as published. Every model is kept: a second call goes on with what is
missing. --quick runs tiny networks on generated data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from comparing.figures import rows
from comparing.models import Unit
from comparing.protocol import Budget, ComparisonResults, DataSource, parser, pool, read, run
from evidence.claims import evaluate_claims
from evidence.document import Result, document
from evidence.figures import CARD_COLUMNS, COLUMNS
from evidence.models import (
    ACE,
    BY_ENTROPY,
    CHOSEN_BY,
    CLASSICAL,
    COOLED,
    EVIDENTIAL,
    FULLY,
    NONE,
    RANDOM,
    STUDY,
    UNCERTAIN,
    arm_of,
    configs,
    drawn,
    evaluate_fully,
    evaluate_unit,
)

from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Manifest

TABLE = Path(__file__).parents[1] / "docs" / "results" / "evidential.md"
#: Arms that are also evaluated at their defaults.
UNTUNED = tuple(arm_of(form, NONE) for form in (CLASSICAL, ACE, EVIDENTIAL))
#: Arms that are also evaluated under the full ensemble, for data sets that are `thorough`.
THOROUGH = tuple(arm_of(EVIDENTIAL, regime) for regime in (RANDOM, UNCERTAIN))


@dataclass(frozen=True)
class EvidentialData(DataSource):
    """A data set with masks, what is spent on it, and what else is set of the study."""

    budget: Budget = field(default_factory=lambda: Budget(folds=5, candidates=3, seeds=1))
    thorough: bool = False
    note: str = ""
    overrides: tuple[str, ...] = ()


SETS = {
    "xrays": EvidentialData(
        "covid-cxr-segmentations",
        "covid19_cxr_segmentations",
        64,
        {"target": "infection"},
        epochs=20,
        thorough=True,
        note="The X-rays of the folder in QaTa-COV19's layout, read from the one that names their "
        "patients: file names do not, and its test set would be that of every fold.",
    ),
    "mri": EvidentialData(
        "lgg",
        "lgg-mri-segmentation/kaggle_3m",
        64,
        {"slices": "tumour"},
        epochs=12,
        budget=Budget(folds=5, candidates=2, seeds=1),
        note="Slices with tumour and as many without.",
    ),
}
QUICK = {
    "phantoms": EvidentialData(
        "phantoms",
        None,
        32,
        {"count": 48},
        epochs=1,
        budget=Budget(folds=3, candidates=2, seeds=1),
        overrides=(
            "space.width=4",
            "space.attack_steps=1",
            "evaluation.attack=pgd",
            "evaluation.attack_steps=1",
        ),
    )
}


def main() -> None:
    asked = parser(__doc__, list(SETS))
    arguments = asked.parse_args()
    sources = QUICK if arguments.quick else {name: SETS[name] for name in arguments.sets}
    if arguments.data is None and any(source.folder for source in sources.values()):
        asked.error("--data is needed: the published folders")
    with pool(arguments.jobs) as workers:
        results = {
            name: _result(name, source, arguments.data, arguments.out, workers)
            for name, source in sources.items()
        }
    claims = evaluate_claims({name: one.evaluated_arms for name, one in results.items()})
    text = document(results, claims)
    table = arguments.out / "evidential.md" if arguments.quick else TABLE
    table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        content = {
            "sets": {name: _content(one) for name, one in results.items()},
            "claims": [claim.as_json() for claim in claims],
        }
        write_atomically(arguments.json, json.dumps(content) + "\n")


def _result(
    name: str, source: EvidentialData, published: Path | None, out: Path, workers: Executor
) -> Result:
    """Every model of one data set, trained and evaluated unless that was done."""
    budget = source.budget
    data = source.prepared(name, budget.folds, published, out)
    overrides = (f"space.epochs={source.epochs}", *source.overrides)
    arms = configs(overrides)

    def unit(fold: Path, arm: str, kept: str, config: Mapping[str, Any]) -> Unit:
        place = out / "models" / name / fold.name / arm / kept
        return Unit(fold, place, config, STUDY, overrides, CHOSEN_BY)

    units = run(
        data,
        partial(drawn, arms, overrides, budget.candidates),
        list(arms),
        {arm: arms[arm] for arm in UNTUNED},
        unit,
        evaluate_unit,
        budget.seeds,
        workers,
    )
    fully = {arm: units.tuned[arm] for arm in THOROUGH} if source.thorough else {}
    flat = [one for folds in fully.values() for fold in folds for one in fold]
    for _ in workers.map(evaluate_fully, flat):
        pass
    manifests = [Manifest.load(fold) for fold in data]
    return Result(
        comparison=ComparisonResults(
            manifests, read(units.tuned), read(units.defaults), units.moved
        ),
        cooled=read(units.tuned, COOLED),
        by_entropy=read(units.tuned, BY_ENTROPY),
        fully=read(fully, FULLY),
        budget=budget,
        config=arms[arm_of(EVIDENTIAL, UNCERTAIN)],
        note=f"{source.note} " if source.note else "",
    )


def _content(one: Result) -> dict[str, Any]:
    kinds = {
        "tuned": one.comparison.tuned,
        "defaults": one.comparison.defaults,
        "cooled": one.cooled,
    }
    return {
        "fingerprints": [manifest.fingerprint for manifest in one.comparison.manifests],
        **{kind: rows(arms, COLUMNS, CARD_COLUMNS) for kind, arms in kinds.items()},
        "fully": one.fully_by_seed(),
        "configs": {
            arm: [[model.card["config"] for model in fold] for fold in folds.folds]
            for arm, folds in one.comparison.tuned.items()
        },
    }


if __name__ == "__main__":
    main()
