"""The method's comparison: two model forms x four regimes x three seeds on real X-rays.

Runs the study `evidential-arms`, judges every model on the test split, and writes the table of
docs/results/evidential.md: mean and standard deviation over the seeds, and paired tests.

    trustsweep prepare "QaTa-COV19-v2" --layout qata-cov19 --size 128 --out data/qata
    python benchmarks/evidential_arms.py --data data/qata --out runs/arms [--json FILE] [--quick]

A second call with the same --out only writes the table again.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from data_pipelines.prepare import prepare as prepare_data
from data_pipelines.schema import Manifest
from distributed.run.folder import STUDY, Run
from distributed.run.ledger import State
from distributed.statistics.inference import holm, paired_t_test, summarise
from distributed.sweep.job import sweep
from distributed.sweep.plan import prepare
from distributed.sweep.resources import cluster_nodes, ray_session
from distributed.sweep.test_evaluation import judge
from distributed.version import VERSION
from search_spaces.study import Study, load

FORMS = {"unet": "classical", "evidential-unet": "evidential"}
REGIMES = ("none", "random", "uncertain", "certain")
COLUMNS = {
    "clean.dice": "Dice, per image",
    "clean.dice_micro": "Dice, micro",
    "attacked@0.005.dice": "Dice, ε 0.005",
    "attacked@0.01.dice": "Dice, ε 0.01",
    "attacked@0.02.dice": "Dice, ε 0.02",
    "clean.ece": "ECE, all pixels",
    "clean.ece_region": "ECE, region",
    "attacked@0.02.ece_region": "ECE, region, ε 0.02",
    "clean.ause": "AUSE",
}
#: What the method claims: guidance by uncertainty beats chance, the control and no attack at all.
TESTED = ("attacked@0.02.dice", "clean.ece_region", "clean.ause")
RIVALS = ("random", "certain", "none")
TABLE = Path("docs/results/evidential.md")
#: Small, to see that everything runs.
QUICK = (
    "space.epochs=1",
    "space.width=4",
    "space.seed={choices: [0, 1]}",
    "search={trials: 16, sampler: grid}",
    "evaluation={attack_steps: 1, corruptions: [], final: fast}",
)

Figures = dict[tuple[str, str], dict[str, dict[int, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a prepared folder; not for --quick")
    parser.add_argument("--out", type=Path, required=True, help="the run folder, new or finished")
    parser.add_argument("--table", type=Path, help=f"instead of {TABLE}")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="generated data, minutes")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.data = arguments.out.with_name(f"{arguments.out.name}-data")
        prepare_data(None, "phantoms", arguments.data, size=32, count=96)
    elif arguments.data is None:
        parser.error("--data is needed: a prepared folder")
    study = load("evidential-arms", [f"data={arguments.data}", *(QUICK if arguments.quick else ())])
    run = _run(study, arguments.out)
    figures = _figures(run)
    text = _document(figures, study, Manifest.load(arguments.data))
    table = arguments.table or (arguments.out / TABLE.name if arguments.quick else TABLE)
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": _rows(figures)}, indent=2))


def _run(study: Study, out: Path) -> Run:
    """The finished run, every completed model judged on the test split."""
    run = Run.open(out) if (out / STUDY).is_file() else sweep(study, out)
    left = [
        record
        for record in run.ledger.of(State.COMPLETED)
        if not (run.evaluation / f"{record.id}.json").is_file()
    ]
    if left:
        with ray_session():
            judge(prepare(study, cluster_nodes()), run, left)
    return run


def _figures(run: Run) -> Figures:
    """(form, regime) to metric to seed to value, on the test split."""
    figures: Figures = defaultdict(lambda: defaultdict(dict))
    cards = run.reread().cards
    for record in run.ledger.of(State.COMPLETED):
        config = record.config
        arm = figures[FORMS[config["trainable"]], config["regime"]]
        for metric in COLUMNS:
            arm[metric][config["seed"]] = cards[record.id].metrics[metric]
    return figures


def _rows(figures: Figures) -> list[dict[str, Any]]:
    rows = []
    for form in FORMS.values():
        for regime in REGIMES:
            row: dict[str, Any] = {"form": form, "regime": regime}
            for metric in COLUMNS:
                summary = summarise(list(figures[form, regime][metric].values()))
                row[metric] = {"mean": summary.mean, "std": summary.std, "n": summary.n}
            rows.append(row)
    return rows


def _tests(figures: Figures) -> list[dict[str, Any]]:
    """Uncertainty-guided selection against each rival, paired by seed, Holm over all of them."""
    tests = []
    for form in FORMS.values():
        for rival in RIVALS:
            for metric in TESTED:
                guided, other = (figures[form, r][metric] for r in ("uncertain", rival))
                seeds = sorted(set(guided) & set(other))
                test = paired_t_test([guided[s] for s in seeds], [other[s] for s in seeds])
                tests.append({"form": form, "rival": rival, "metric": metric, "test": test})
    for entry, adjusted in zip(tests, holm([t["test"].p for t in tests]), strict=True):
        entry["p_holm"] = float(adjusted)
    return tests


def _document(figures: Figures, study: Study, manifest: Manifest) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in manifest.split_counts.items())
    table = [
        f"| form | regime | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for row in _rows(figures):
        cells = [f"{row[m]['mean']:.3f} ± {row[m]['std']:.3f}" for m in COLUMNS]
        table.append(f"| {row['form']} | {row['regime']} | {' | '.join(cells)} |")
    tests = _tests(figures)
    lines = [
        "| form | against | figure | difference | t | p | p (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in tests:
        test = entry["test"]
        lines.append(
            f"| {entry['form']} | {entry['rival']} | {COLUMNS[entry['metric']]} | "
            f"{test.difference:+.3f} | {test.refused or f'{test.t:.2f}'} | {_p(test.p)} | "
            f"{_p(entry['p_holm'])} |"
        )
    held = [
        f"{t['form']}, against {t['rival']}: {COLUMNS[t['metric']]}"
        for t in tests
        if t["p_holm"] < 0.05
    ]
    verdict = (
        f"{len(held)} of {len(tests)} differences are significant at 5 % after Holm's correction"
        + (f" ({'; '.join(held)}). " if held else ". ")
        + "With three seeds (critical |t| 4.30 before correction) only large ones can be."
    )
    space = study.space
    setting = (
        f"{space['epochs']} epochs, batch {space['batch_size']}, AdamW at "
        f"{space['learning_rate']}, cosine annealing"
    )
    attack = f"PGD-{space['attack_steps']} at ε {space['epsilon']} on half of each batch"
    return f"""# Evidential and classical segmentation under four regimes

Made by `benchmarks/evidential_arms.py` with trustsweep {VERSION}, torch {torch.__version__} on
{platform.machine()}; do not edit.

Data: layout `{manifest.name}`, {manifest.image_shape[1]} px, {counts} images, fingerprint
`{manifest.fingerprint[:12]}`. All figures are of the test split, mean ± standard deviation (ddof 1)
over seeds 0, 1 and 2. Every arm: {setting}.
Arms that attack: {attack}, so the attack budget is equal;
they differ in which half. Judged under PGD-{study.evaluation.attack_steps} on the predicted
probability, ε on the [0, 1] scale.

{chr(10).join(table)}

Dice, per image: mean over images, 1 where mask and prediction are both empty, 0 where one is.
Micro: over all pixels of the split. Region: pixels of lesion or prediction, dilated. AUSE:
normalised, error |y - p|, mean over images. Lower is better for ECE and AUSE.

## Does guidance by uncertainty help?

Uncertainty-guided selection less its rival, paired by seed.

{chr(10).join(lines)}

{verdict}
"""


def _p(value: float) -> str:
    if math.isnan(value):
        return "not tested"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    main()
