"""What a search costs until it has the front: rules of stopping and samplers side by side.

Three parts. `recorded`: 64 recorded trainings in random orders, every pair of a measure of Dice and
one of calibration, every rule of stopping at the same rungs. `exponent`: the same for what else the
exponent of forecast's threshold might be. `functions`: test functions with known fronts behind
curves that mislead, samplers with and without stopping. Costs are of training and of every
evaluation, at rungs and at the end. Writes docs/results/search_efficiency.md.

    python benchmarks/search_efficiency.py --data FOLDER [--out runs/search_efficiency]
        [--parts recorded ...] [--orders 20] [--seeds 20] [--json FILE] [--quick]

FOLDER holds `learning_curves`. Finished searches are kept under --out, so that a call that was
ended, or that asks for more orders or seeds, goes on where it was; --seeds 0 writes the document
from what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from efficiency.document import document
from efficiency.findings import DOUBTS, findings
from efficiency.measure import finals_of
from efficiency.problem import Problem
from efficiency.problems import FUNCTIONS, PAIRS, Analytic, Recorded
from efficiency.stopping import RULES
from efficiency.ways import TrialOutcome, Way, sweep

from trustsweep.data_pipelines.machine import write_atomically

CURVES = Path("learning_curves") / "xray_lungs_64_configs.jsonl"
TABLE = Path("docs/results/search_efficiency.md")
RECORDED, EXPONENT, FUNCTION = "recorded", "exponent", "functions"
PARTS = (RECORDED, EXPONENT, FUNCTION)
STOPPED = [
    *((rule, rungs) for rule in RULES if rule != "none" for rungs in ("1/8", "1/4")),
    ("forecast", "four"),
]
ON_CURVES = [Way("random"), *(Way("random", rule, rungs) for rule, rungs in STOPPED)]
#: What else the exponent of forecast's threshold might have been.
DOUBTED = [Way("random", "forecast", "four", doubt) for doubt in DOUBTS]
#: The Gaussian process takes a minute a search.
ON_FUNCTIONS = [
    Way("random"),
    Way("guide"),
    Way("tpe"),
    *(
        Way("tpe", rule, rungs)
        for rungs in ("1/4", "1/8")
        for rule in ("scalarised", "forecast", "halving")
    ),
    Way("gp"),
    Way("gp", "scalarised", "1/4"),
    Way("gp", "forecast", "1/4"),
]


class Searches:
    """Finished searches, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs: dict[str, dict[str, dict[int, list[TrialOutcome]]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                history = [TrialOutcome(*trial) for trial in entry["history"]]
                self.runs[entry["problem"]][entry["way"]][entry["seed"]] = history

    def run(self, problem: Problem, way: Way, seed: int) -> list[TrialOutcome]:
        """The search of that seed, done now if it was not done before."""
        known = self.runs[problem.name][way.name]
        if seed not in known:
            finals = None
            if RULES[way.rule].known:
                finals = finals_of(self.run(problem, Way("random"), seed))
            known[seed] = sweep(problem, way, seed, finals)
            entry = {"problem": problem.name, "way": way.name, "seed": seed, "history": known[seed]}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        return known[seed]


def main() -> None:
    arguments = _arguments()
    # What Optuna calls experimental (grouped TPE) has been there since 2.8.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    searches = Searches(arguments.out / "searches.jsonl")
    curves = arguments.data / CURVES
    pairs = PAIRS[:2] if arguments.quick else PAIRS
    for part, ways in ((RECORDED, ON_CURVES), (EXPONENT, DOUBTED)):
        for pair in pairs if part in arguments.parts else ():
            _search(searches, Recorded(curves, pair), ways, range(arguments.orders))
    if FUNCTION in arguments.parts:
        names = ["zdt1"] if arguments.quick else list(FUNCTIONS)
        ways = [w for w in ON_FUNCTIONS if w.sampler in arguments.samplers]
        for way in ways:
            for name in names:
                _search(searches, Analytic(name), [way], range(arguments.seeds))
    results = findings(searches.runs, curves)
    text = document(results)
    table = arguments.table or (arguments.out / TABLE.name if arguments.quick else TABLE)
    write_atomically(table, text)
    print(text)
    if arguments.json:
        write_atomically(arguments.json, json.dumps(_finite(results), indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds learning_curves")
    parser.add_argument("--out", type=Path, default=Path("runs/search_efficiency"))
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="the others stay as they are"
    )
    parser.add_argument("--orders", type=int, default=20, help="of the recorded trainings")
    parser.add_argument("--seeds", type=int, default=20, help="of each search of a function")
    parser.add_argument(
        "--samplers", nargs="+", default=["random", "guide", "tpe", "gp"], help="on functions"
    )
    parser.add_argument("--table", type=Path, help=f"instead of {TABLE}")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="few orders and seeds, seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.orders = arguments.seeds = 2
        arguments.samplers = ["random", "guide", "tpe"]
        arguments.parts = [RECORDED, FUNCTION]
    return arguments


def _finite(value: Any) -> Any:
    """JSON has no infinity: what is never reached costs null."""
    if isinstance(value, dict):
        return {key: _finite(value) for key, value in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(value) for value in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _search(
    searches: Searches, problem: Problem, ways: Sequence[Way], seeds: Iterable[int]
) -> None:
    for seed in seeds:
        for way in ways:
            searches.run(problem, way, seed)
    for way in ways:
        print(f"{problem.name}: {way.name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
