"""Training cost until a search has the front, five ways side by side.

Ways: Ray Tune's OptunaSearch as its guide writes it, random search, random search with a scalarised
ASHA, `halving`, and `forecast` (on random configs, and with samplers of a study); on test functions
also what tells sampler and stopping apart. Problems: recorded curves of real trainings (replay),
test functions with known fronts behind curves that mislead (zdt1 to 3, dtlz2), and live training on
real data. Costs are of training 64 trials.

    python benchmarks/search_efficiency.py [--problems replay zdt1 ...] [--seeds 5] [--orders 200]
        [--json FILE] [--figures DIR] [--cache DIR]

Live trainings are kept under --cache, so that a second call only trains what is new.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from efficiency.figures import draw
from efficiency.live import LIVE, Live
from efficiency.measure import Measured, finals_of
from efficiency.problem import Problem
from efficiency.problems import FUNCTIONS, Analytic, Recorded
from efficiency.ways import TRIALS, WAYS, sweep
from replay import Played

from data_pipelines.machine import write_atomically

REPLAY = "replay"
PROBLEMS = (REPLAY, *FUNCTIONS, *LIVE)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> None:
    arguments = _arguments()
    # What Optuna calls experimental (grouped TPE) has been there since 2.8.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    results = _known(arguments.json)
    for name in arguments.problems:
        problem = _problem(name, arguments)
        runs = _runs(problem, arguments.ways, _count(problem, arguments))
        results[name] = Measured.of(problem, runs, arguments.median_of).to_dict()
        if arguments.json:
            content = {"trials": TRIALS, "problems": list(results.values())}
            write_atomically(arguments.json, json.dumps(content) + "\n")
    problems = [results[name] for name in PROBLEMS if name in results]
    print(_text([row for problem in problems for row in problem["rows"]]))
    if arguments.figures:
        draw(problems, arguments.figures / "search_efficiency.png")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=5, help="sweeps of each way where it trains")
    parser.add_argument("--orders", type=int, default=200, help="of the recorded trials")
    parser.add_argument("--draws", type=int, default=25, help="sweeps of each test function")
    parser.add_argument(
        "--median-of",
        choices=("random", "optuna"),
        default="random",
        help="whose median trial hypervolumes are measured from",
    )
    parser.add_argument("--data", type=Path, default=DATA, help="the published folders")
    parser.add_argument("--cache", type=Path, default=Path("runs/search_efficiency"))
    parser.add_argument("--json", type=Path, help="results; of other problems, what it holds stays")
    parser.add_argument("--figures", type=Path, help="a folder for the figure")
    return parser.parse_args()


def _problem(name: str, arguments: argparse.Namespace) -> Problem:
    if name == REPLAY:
        return Recorded(arguments.data / "learning_curves" / "xray_lungs_64_configs.jsonl")
    if name in FUNCTIONS:
        return Analytic(name)
    return Live(name, arguments.data, arguments.cache)


def _runs(problem: Problem, ways: Sequence[str], count: int) -> dict[str, dict[int, list[Played]]]:
    """Ways under every seed: those asked for that the problem can have, and the full-length ones.

    Random sweeps come first, as ASHA needs their range.
    """
    wanted = {*ways, "random", "optuna"}
    if problem.pool is not None:
        wanted = {way for way in wanted if WAYS[way].sampler == "random"}
    if isinstance(problem, Live):
        wanted -= {way for way in wanted if WAYS[way].untrained}
    ordered = sorted(wanted, key=lambda way: way != "random")
    runs: dict[str, dict[int, list[Played]]] = {way: {} for way in WAYS if way in ordered}
    for seed in range(count):
        for way in ordered:
            if seed >= (WAYS[way].most or count):
                continue
            finals = None if way == "random" else finals_of(runs["random"][seed])
            runs[way][seed] = sweep(problem, WAYS[way], seed, finals)
        print(f"{problem.name}: seed {seed + 1} of {count}", file=sys.stderr)
    return runs


def _count(problem: Problem, arguments: argparse.Namespace) -> int:
    if isinstance(problem, Live):
        return int(arguments.seeds)
    return int(arguments.orders if problem.pool else arguments.draws)


def _known(path: Path | None) -> dict[str, Any]:
    """Results of earlier calls, by problem."""
    if path is None or not path.is_file():
        return {}
    return {problem["name"]: problem for problem in json.loads(path.read_text())["problems"]}


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown; see the document for its columns."""
    head = ("problem", "way", "runs", "there", "cost", "of first's", "in all", "end", "end, 5 %")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        way = WAYS[row["way"]].label if row["way"] in WAYS else row["way"]
        figures = (_number(row[key]) for key in ("cost", "ratio", "spent", "final", "final_low"))
        lines.append((row["problem"], way, str(row["runs"]), f"{row['reached']:.0%}", *figures))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
