"""What an attack is worth: fronts of three data sets under PGD-7 as it was, fast and full ensemble.

On each data set, random configurations of a shipped study's space are trained and evaluated on the
validation split by the fast ensemble, as in a search; the models of their front are then attacked
on the test split, also by the attack that this project used before: PGD-7 on the
cross-entropy of float32 probabilities, last iterate, one start. Beside them stands a classifier
trained without any defence until it is sure of itself. Writes docs/results/attacks.md.

    python benchmarks/attacks.py --data DATA --out runs/attacks [--jobs N] [--json FILE] [--quick]

DATA holds `covid19_cxr_qata_layout`, `lgg-mri-segmentation` and `medmnist`; with --quick, generated
X-rays stand for all of them. Every training and evaluation is saved: a second call resumes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from optuna.samplers import RandomSampler
from torch import Tensor

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Batch, Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams.indexed import Samples
from trustsweep.distributed.run.checkpoints import load_model, save_model
from trustsweep.distributed.run.folder import evaluation_plan, objectives_of
from trustsweep.distributed.run.trivial import read_trivial
from trustsweep.distributed.statistics.front import pareto_mask
from trustsweep.distributed.sweep.checks import task_of
from trustsweep.distributed.sweep.robustness import EFFORT, SAMPLES
from trustsweep.distributed.version import VERSION
from trustsweep.distributed.workers.model import Model
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.study import Study, load
from trustsweep.trainables.attacks import ScoreVictim, make_attack
from trustsweep.trainables.attacks.ensemble import STEPS
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan, evaluate
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.registry import FAST, FULL

#: The attack before, beside the names of the ensembles.
BEFORE = "pgd-7"
TABLE = Path(__file__).parents[1] / "docs" / "results" / "attacks.md"
#: Held in every study: nothing but attacks is of interest here.
COMMON = ("evaluation.corruptions=[]", "search.seed=0")
#: An undefended classifier of ordinary settings, and long enough a training to be sure.
UNDEFENDED = {
    "epochs": 30, "learning_rate": 0.01, "weight_decay": 1e-6, "batch_size": 64, "regime": "none",
    "corruption_fraction": 0.0, "seed": 1,
}  # fmt: skip


@dataclass(frozen=True)
class SearchSetup:
    """A data set and how a front on it is searched.

    Attributes:
        source: Below the folder of the data sets; "" for generated ones.
        metric: Reported of its models at each ε.
        undefended: Whether `UNDEFENDED` is trained on it.
    """

    title: str
    layout: str
    source: str
    size: int
    study: str
    settings: tuple[str, ...]
    metric: str
    undefended: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


PROBLEMS = {
    "xrays": SearchSetup(
        "Chest X-rays, infection, 64 px",
        "qata-cov19",
        "covid19_cxr_qata_layout/QaTa-COV19-v2",
        64,
        "evidential",
        ("search.trials=6",),
        "dice_lesion",
    ),
    "mri": SearchSetup(
        "Brain MRI, tumour, 64 px",
        "lgg",
        "lgg-mri-segmentation/kaggle_3m",
        64,
        "evidential",
        ("search.trials=6", "space.epochs=10"),
        "dice_lesion",
    ),
    "pneumonia": SearchSetup(
        "PneumoniaMNIST, 28 px",
        "medmnist",
        "medmnist/pneumoniamnist.npz",
        28,
        "classification",
        ("search.trials=6",),
        "accuracy",
        undefended=True,
    ),
}
QUICK = {
    "phantoms": SearchSetup(
        "Generated X-rays, 32 px",
        "phantoms",
        "",
        32,
        "quick",
        (
            "search.trials=3",
            "space.epochs=2",
            "space.width=4",
            "constraints=[]",
            "objectives=[dice_lesion_area, clean.brier]",
        ),
        "dice_lesion",
        options={"count": 60},
    )
}


class ProbabilityVictim(ScoreVictim):
    """What was attacked before: the cross-entropy of the probability, as float32 rounds it."""

    def loss(self, batch: Batch) -> Tensor:
        prediction = self.method.predict(self.network, batch)
        truth = self.method.task.truth(batch)
        assert truth is not None
        p = prediction.probability
        if p.shape[1] > 1:
            tiny = torch.finfo(torch.float32).tiny
            return F.nll_loss(p.clamp_min(tiny).log(), truth, reduction="none")
        p, truth = p.flatten(1), truth.reshape(len(p), -1).float()
        return F.binary_cross_entropy(p, truth, reduction="none").mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument(
        "--table", type=Path, help="the document; docs/results/attacks.md if left out"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="generated data, minutes")
    arguments = parser.parse_args()
    problems = QUICK if arguments.quick else PROBLEMS
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as workers:
        rows = [
            row
            for name, problem in problems.items()
            for row in measured(problem, arguments.data, arguments.out / name, workers)
        ]
    text = document(rows, problems)
    table = arguments.table or (arguments.out / "attacks.md" if arguments.quick else TABLE)
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2))


def measured(
    problem: SearchSetup, sources: Path | None, out: Path, workers: ProcessPoolExecutor
) -> list[dict[str, Any]]:
    """A row for each model of the problem's front, and for the undefended one; kept in `out`."""
    data = out / "data"
    if not (data / MANIFEST_NAME).is_file():
        source = sources / problem.source if sources and problem.source else None
        prepare(source, problem.layout, data, size=problem.size, **problem.options)
    manifest = Manifest.load(data)
    study = load(problem.study, [*problem.settings, *COMMON, f"data={data}"])
    draws = optuna.create_study(sampler=RandomSampler(seed=study.search.seed))
    space = study.search_space()
    configs = {f"{i:02d}": space.suggest(draws.ask()) for i in range(study.search.trials)}
    prior = read_trivial(Folder(data), manifest, task_of(study, manifest)).prior
    train = partial(_trained, data, out, evaluation_plan(study), prior)
    figures = dict(zip(configs, workers.map(train, configs, configs.values()), strict=True))
    names = _front(study, figures)
    chosen = {name: configs[name] for name in names}
    if problem.undefended:
        chosen["undefended"] = {**space.defaults("classifier"), **UNDEFENDED}
        workers.submit(train, "undefended", chosen["undefended"]).result()
    row = partial(_row, problem, data, out, evaluation_plan(study))
    return list(workers.map(row, chosen, chosen.values()))


def _front(study: Study, figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The models that keep the study's constraints and that no other beats, on validation."""
    fit = [
        name
        for name, metrics in figures.items()
        if all(c.violation(metrics[c.metric]) <= 0 for c in study.constraints)
    ]
    objectives = objectives_of(study)
    values = [[figures[name][o.name] for o in objectives] for name in fit]
    mask = pareto_mask(values, [o.direction for o in objectives])
    return [name for name, member in zip(fit, mask, strict=True) if member]


def _trained(
    data: Path,
    out: Path,
    plan: EvaluationPlan,
    prior: Prior | None,
    name: str,
    config: Mapping[str, Any],
) -> dict[str, float]:
    """Train a model and evaluate it on validation, unless that was done."""
    torch.set_num_threads(1)
    kept = out / f"{name}.json"
    if kept.is_file():
        known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
        return known
    training = Training(config, Manifest.load(data), plan, prior=prior)
    samples = Samples.read(data, Split.TRAIN)
    for _ in range(config["epochs"]):
        training.epoch(samples)
    figures = training.evaluate(Samples.read(data, Split.VAL), batch_size=32).compute()
    save_model(out / "models" / name, training.model.network, {"config": dict(config)})
    kept.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def _row(
    problem: SearchSetup,
    data: Path,
    out: Path,
    plan: EvaluationPlan,
    name: str,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """A model under the three attacks, on the test split; seconds are of this process' CPU."""
    torch.set_num_threads(1)
    kept = out / f"{name}-test.json"
    if kept.is_file():
        row: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return row
    model = Model(config, Manifest.load(data), plan)
    load_model(out / "models" / name, model.network)
    samples = Samples.read(data, Split.TEST)
    evaluate_model = partial(model.evaluate, samples, batch_size=32)
    figures, spent = {}, {}
    ways = {BEFORE: partial(_before, model, samples), FAST: evaluate_model}
    ways[FULL] = partial(evaluate_model, attack=FULL)
    for attack, run in ways.items():
        began = time.process_time()
        figures[attack] = run().compute()
        spent[attack] = time.process_time() - began
    few = samples.batch(range(min(len(samples), SAMPLES["full"])))
    masking = model.masking(few, max(plan.budgets), EFFORT["full"])
    names = {f"{e:g}": f"{attacked_name(e)}.{problem.metric}" for e in plan.budgets}
    row = {
        "data": problem.title,
        "model": name,
        "method": config["method"],
        "regime": config["regime"],
        "metric": problem.metric,
        "clean": figures[FAST][f"clean.{problem.metric}"],
        "attacked": {a: {e: f[n] for e, n in names.items()} for a, f in figures.items()},
        "seconds": spent,
        "signs": list(masking.signs),
        "masking": masking.figures,
    }
    kept.write_text(json.dumps(row, indent=2), encoding="utf-8")
    return row


def _before(model: Model, samples: Samples) -> Evaluation:
    """PGD-7 on probabilities, last iterate, one start: the attack used before."""
    victim = ProbabilityVictim(model.method, model.network)
    attack = make_attack("pgd", steps=7)

    def attacked(batch: Batch, epsilon: float, _: Tensor | None) -> Batch:
        return attack(victim, batch, epsilon, seeds=draw_seeds(batch.sample_id, "attack"))

    batches = (batch for batch in samples.sweep(32))
    return evaluate(
        model.method,
        model.network,
        batches,
        model.plan,
        corrupt=lambda batch, *_: batch,
        attack=attacked,
    )


def document(rows: Sequence[Mapping[str, Any]], problems: Mapping[str, SearchSetup]) -> str:
    """docs/results/attacks.md."""
    sides = {steps: round(size**0.5) for size, steps in STEPS.items()}
    budgets = ", ".join(f"{steps} up to {side} x {side} pixels" for steps, side in sides.items())
    parts = [
        "# What the attack is worth",
        f"Made by `benchmarks/attacks.py` with trustsweep {VERSION}, torch {torch.__version__} on "
        f"{platform.machine()}; do not edit.",
        "The fronts of random configurations of shipped studies' spaces, chosen on validation by "
        "the fast ensemble and judged on the test split under three attacks. **Before**: "
        "PGD-7 on the cross-entropy of float32 probabilities (last iterate, one start), by which "
        "models were judged until now. The **fast** ensemble judges every trial of a search, the "
        "**full** one a front. L∞, ε on the [0, 1] scale. Steps of each attack in the full "
        f"ensemble: {budgets}, 10 above.",
    ]
    for problem in problems.values():
        parts += _table(problem.title, [row for row in rows if row["data"] == problem.title])
    parts += ["## What follows", "\n".join(_findings(rows))]
    parts.append(
        "Signs of masking are looked for on 48 test samples; `trainables/attacks/masking.py` says "
        "how. A model that was chosen under the fast ensemble is rather one that it is too kind to."
    )
    return "\n\n".join(parts) + "\n"


def _findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    front = [row for row in rows if row["model"] != "undefended"]
    if not front:
        return ["- No model stands on a front."]
    gaps = [gap for row in front for gap in _gaps(row, FAST)]
    spent = {attack: sum(row["seconds"][attack] for row in front) for attack in (BEFORE, FAST)}
    return [
        f"- Fast above full, over {len(front)} models of the fronts and every ε: "
        f"{sum(gaps) / len(gaps):.3f} on average, {max(gaps):.3f} at worst (aimed at: .02, .05).",
        f"- Before above full: {max(gap for row in front for gap in _gaps(row, BEFORE)):.3f} at "
        "worst on the fronts, "
        f"{max(gap for row in rows for gap in _gaps(row, BEFORE)):.3f} over all rows.",
        f"- CPU time of an evaluation, clean pass and metrics included: {spent[FAST]:.0f} s under "
        f"the fast ensemble, {spent[BEFORE]:.0f} s under the attack before: "
        f"{spent[FAST] / spent[BEFORE]:.2f} times (aimed at: 1.5).",
        f"- Signs of gradient masking: {_signs(front)}.",
    ]


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return [f"## {title}", "No model stands on the front."]
    attacks, budgets = (BEFORE, FAST, FULL), list(rows[0]["attacked"][FULL])
    columns = [(e, attack) for e in budgets for attack in attacks]
    names = {BEFORE: "before", FAST: "fast", FULL: "full"}
    head = ["model", "regime", "clean", *(f"ε {e} {names[a]}" for e, a in columns), "signs"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        figures = [row["clean"], *(row["attacked"][attack][e] for e, attack in columns)]
        cells = [f"{row['method']} {row['model']}", row["regime"]]
        cells += [f"{figure:.3f}" for figure in figures]
        lines.append(f"| {' | '.join([*cells, ', '.join(row['signs']) or 'none'])} |")
    measure = {"dice_lesion": "Dice of images with a lesion"}.get(rows[0]["metric"], "Accuracy")
    return [f"## {title}", f"{measure}.", "\n".join(lines)]


def _gaps(row: Mapping[str, Any], attack: str) -> list[float]:
    """At each ε, how much higher a model stands under an attack than under the full ensemble."""
    given, full = row["attacked"][attack], row["attacked"][FULL]
    return [given[e] - full[e] for e in full]


def _signs(rows: Sequence[Mapping[str, Any]]) -> str:
    marked = [row for row in rows if row["signs"]]
    if not marked:
        return f"none on any of {len(rows)} models"
    kinds = sorted({sign for row in marked for sign in row["signs"]})
    return f"{len(marked)} of {len(rows)} models ({', '.join(kinds)})"


if __name__ == "__main__":
    main()
