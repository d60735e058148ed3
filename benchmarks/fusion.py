"""Reliability-aware fusion against its baselines on four data sets, and the proposal's four claims.

Prepares each data set, runs the study `fusion-arms` on it (five seeds of every model and ablation,
judged on the test split and on a site that was held out), and writes docs/results/fusion.md.

    python benchmarks/fusion.py --data FOLDER --out runs/fusion [--sets heart ...] [--json FILE]

FOLDER holds the data sets as published. A second call with the same --out goes on with what is
missing, and else only writes the tables again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from data_pipelines.machine import write_atomically
from data_pipelines.prepare import prepare
from data_pipelines.schema import MANIFEST_NAME, Manifest
from distributed.run import STUDY
from distributed.run_folder import read_run
from distributed.statistics import Summary, holm, paired_t_test, summarise
from distributed.sweep import resume, sweep
from distributed.version import VERSION
from search_spaces.study import load

METHOD = "baseline"
BASELINES = (
    "early-fusion",
    "late-fusion-mean",
    "late-fusion-majority",
    "mda",
    "drifa-net",
    "healnet",
    "drfuse",
)
ABLATIONS = {
    "no-detection": "λ = 0",
    "equal-weights": "r = 1/M (α = 0)",
    "alpha-3": "α = 3",
    "alpha-30": "α = 30",
    "epistemic": "U epistemic alone",
    "aleatoric": "U aleatoric alone",
    "through-uncertainty": "gradient through U",
    "gated-by-detector": "detector in the gate, β = 5",
}
#: Of the shares to answer (`distributed.selective`), the one that the third claim is tested at.
COVERAGE = 0.8
ALPHA = 0.05


@dataclass(frozen=True)
class Source:
    """A data set: where its published folder is, what is prepared of it, and how it is trained."""

    layout: str
    folder: str | None
    size: int
    noise: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 16


SETS = {
    "phantoms": Source(
        "phantoms", None, 48, "gaussian-noise", {"count": 800, "ood_site": "portable"}
    ),
    "heart": Source("uci-heart", "uci_heart_disease", 32, "value-noise", {"ood_site": "va"}),
    "icu": Source("physionet2012", "physionet_challenge2012", 32, "value-noise", epochs=32),
    "lgg": Source(
        "lgg", "lgg-mri-segmentation/kaggle_3m", 64, "gaussian-noise", {"ood_site": "HT"}
    ),
}


class Arm(NamedTuple):
    """The cards of one model by seed."""

    cards: dict[int, dict[str, Any]]

    def values(self, figure: Callable[[dict[str, Any]], float]) -> list[float]:
        """By ascending seed."""
        return [figure(self.cards[seed]) for seed in sorted(self.cards)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the published folders")
    parser.add_argument("--out", type=Path, required=True, help="prepared data and runs")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--table", type=Path, default=Path("docs/results/fusion.md"))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = {name: _run(name, arguments.data, arguments.out) for name in arguments.sets}
    manifests = {name: Manifest.load(arguments.out / "data" / name) for name in found}
    claims = _claims(found)
    text = _document(found, manifests, claims)
    arguments.table.parent.mkdir(parents=True, exist_ok=True)
    arguments.table.write_text(text, encoding="utf-8")
    print(text)
    if arguments.json:
        rows = {name: _rows(arms) for name, arms in found.items()}
        content = {"sets": rows, "claims": [claim._asdict() for claim in claims]}
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")


def _run(name: str, published: Path, out: Path) -> dict[str, Arm]:
    """The finished study on one data set, by name of the model or ablation."""
    source, data, folder = SETS[name], out / "data" / name, out / name
    if not (data / MANIFEST_NAME).is_file():
        raw = None if source.folder is None else published / source.folder
        prepare(raw, source.layout, data, size=source.size, **source.options)
    corruptions = f"[mixed-quality, modality-drop, {source.noise}]"
    overrides = [
        f"data={data}",
        f"space.epochs={source.epochs}",
        f"evaluation.corruptions={corruptions}",
    ]
    if not (folder / STUDY).is_file():
        sweep(load("fusion-arms", overrides), folder)
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


# --- figures ---------------------------------------------------------------------------------


def _metric(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda card: float(card["metrics"].get(name, math.nan))


def _under(corruption: str, metric: str) -> Callable[[dict[str, Any]], float]:
    """The mean over the five severities of one corruption."""

    def figure(card: dict[str, Any]) -> float:
        values = [card["metrics"][f"corrupted@{corruption}-{s}.{metric}"] for s in range(1, 6)]
        return float(np.mean(values))

    return figure


def _noise(metric: str) -> Callable[[dict[str, Any]], float]:
    def figure(card: dict[str, Any]) -> float:
        kind = next(n for n in ("gaussian-noise", "value-noise") if _has(card, n))
        return _under(kind, metric)(card)

    return figure


def _has(card: dict[str, Any], corruption: str) -> bool:
    return f"corrupted@{corruption}-1.auroc" in card["metrics"]


def _ood(metric: str) -> Callable[[dict[str, Any]], float]:
    return lambda card: float(
        card.get("ood", {}).get("metrics", {}).get(f"clean.{metric}", math.nan)
    )


def _drop(card: dict[str, Any]) -> float:
    """Loss of AUROC, in % of the clean, mean over every corruption and severity."""
    metrics = card["metrics"]
    return float(100 * (1 - metrics["corrupted.auroc"] / metrics["clean.auroc"]))


def _precision(card: dict[str, Any]) -> float:
    return float(card["selective"]["conditions"]["clean"]["all"]["precision"])


def _precision_accepted(card: dict[str, Any]) -> float:
    targets = [entry["target"] for entry in card["selective"]["thresholds"]]
    accepted = card["selective"]["conditions"]["clean"]["accepted"][targets.index(COVERAGE)]
    return float(accepted["precision"])


def _weights(card: dict[str, Any]) -> float:
    return float(card.get("weights", {}).get("within", math.nan))


COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "AUROC": _metric("clean.auroc"),
    "mixed quality": _under("mixed-quality", "auroc"),
    "missing": _under("modality-drop", "auroc"),
    "noise": _noise("auroc"),
    "held-out site": _ood("auroc"),
    "drop %": _drop,
    "accuracy": _metric("clean.accuracy"),
    "F1": _metric("clean.f1"),
    "ECE": _metric("clean.ece"),
    "ECE, corrupted": _metric("corrupted.ece"),
    "ECE, site": _ood("ece"),
    "Brier": _metric("clean.brier"),
    "NLL": _metric("clean.nll"),
    "AURC": _metric("clean.aurc"),
    "ρ(r, severity)": _weights,
}


def _rows(arms: dict[str, Arm]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            column: dataclasses.asdict(summarise(arm.values(figure)))
            for column, figure in COLUMNS.items()
        }
        for name, arm in arms.items()
    }


# --- claims ----------------------------------------------------------------------------------


class Claim(NamedTuple):
    """One claim on one data set, and the test that it rests on."""

    claim: str
    data: str
    against: str
    method: float
    other: float
    difference: float
    p: float
    p_holm: float
    held: bool


def _claims(found: dict[str, dict[str, Arm]]) -> list[Claim]:
    """All of them; p is adjusted over every test of a claim."""
    return [
        *_tested(found, "drop", BASELINES, _drop, lambda a, b: a < 5 and b > 10),
        *_tested(
            found, "calibration", ("early-fusion", "late-fusion-mean"), _metric("clean.ece"),
            lambda a, b: a <= 0.7 * b,
        ),
        *_abstention(found),
        *_reliance(found),
    ]  # fmt: skip


def _tested(
    found: dict[str, dict[str, Arm]],
    claim: str,
    rivals: Sequence[str],
    figure: Callable[[dict[str, Any]], float],
    bound: Callable[[float, float], bool],
) -> list[Claim]:
    """Less is better: the method less than each rival, significantly, and by the claimed bound."""
    pairs = []
    for data, arms in found.items():
        mine = arms[METHOD].values(figure)
        pairs += [(data, rival, mine, arms[rival].values(figure)) for rival in rivals]
    return _adjusted(claim, pairs, lambda a, b: a < b and bound(a, b))


def _abstention(found: dict[str, dict[str, Arm]]) -> list[Claim]:
    pairs = [
        (
            data,
            "answering all",
            arms[METHOD].values(_precision_accepted),
            arms[METHOD].values(_precision),
        )
        for data, arms in found.items()
    ]
    return _adjusted("abstention", pairs, lambda a, b: a > b)


def _reliance(found: dict[str, dict[str, Arm]]) -> list[Claim]:
    pairs = [
        (data, "no correlation", arms[METHOD].values(_weights), [0.0] * len(arms[METHOD].cards))
        for data, arms in found.items()
    ]
    return _adjusted("reliability", pairs, lambda a, b: a < b)


def _adjusted(
    claim: str,
    pairs: Sequence[tuple[str, str, list[float], list[float]]],
    holds: Callable[[float, float], bool],
) -> list[Claim]:
    tests = [paired_t_test(mine, theirs) for _, _, mine, theirs in pairs]
    adjusted = holm([test.p for test in tests])
    claims = []
    for (data, rival, mine, theirs), test, p in zip(pairs, tests, adjusted, strict=True):
        a, b = float(np.mean(mine)), float(np.mean(theirs))
        held = bool(p < ALPHA) and holds(a, b)
        claims.append(Claim(claim, data, rival, a, b, test.difference, test.p, float(p), held))
    return claims


# --- the document ----------------------------------------------------------------------------

_CLAIMS = {
    "drop": "1. AUROC drops by less than 5 % on corrupted or missing modalities, where that of a "
    "baseline drops by more than 10 % (mean over every corruption and severity, in % of the "
    "clean AUROC).",
    "calibration": "2. ECE is at least 30 % below that of deterministic fusion (clean test split).",
    "abstention": f"3. Abstention raises precision (macro; threshold of the {COVERAGE:.0%} surest "
    "of the validation split).",
    "reliability": "4. The weights follow quality (Spearman's ρ of r_m and the severity of each "
    "modality's corruption, mean over the samples' own, below 0).",
}


def _document(
    found: dict[str, dict[str, Arm]], manifests: dict[str, Manifest], claims: Sequence[Claim]
) -> str:
    parts = [
        "# Reliability-aware fusion and its baselines",
        f"Made by `benchmarks/fusion.py` with trustsweep {VERSION}, torch {torch.__version__} on "
        f"{platform.machine()}; do not edit.",
        "Every model has the same encoders, optimiser, number of epochs and training corruptions, "
        "and its method's own parameters at their defaults: nothing was tuned, for any of them. "
        "Mean ± standard deviation (ddof 1) over seeds 0 to 4, on the test split; where a site was "
        "held out, on all of it. The splits are one draw: the seeds vary training alone, so what "
        "the tests show holds for these patients.",
        "## The proposal's claims",
        *_claim_tables(claims),
        "## Figures",
        "mixed quality: every modality is made worse on its own with probability 0.1 to 1, at a "
        "random severity; missing: p_miss 0.1 to 0.7; noise: Gaussian, of images or of values. "
        "Each is AUROC, the mean over five severities. drop %: of all of these against clean.",
    ]
    for name, arms in found.items():
        parts += _tables(name, arms, manifests[name])
    return "\n\n".join(parts) + "\n"


def _claim_tables(claims: Sequence[Claim]) -> list[str]:
    parts = []
    for claim, text in _CLAIMS.items():
        rows = [c for c in claims if c.claim == claim]
        held = sum(c.held for c in rows)
        lines = [
            "| data | against | DRAF | other | difference | p | p (Holm) | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {c.data} | {c.against} | {c.method:.3f} | {c.other:.3f} | {c.difference:+.3f} | "
            f"{_p(c.p)} | {_p(c.p_holm)} | {'held' if c.held else 'not held'} |"
            for c in rows
        ]
        parts += [f"{text} **Held in {held} of {len(rows)}.**", "\n".join(lines)]
    return parts


def _tables(name: str, arms: dict[str, Arm], manifest: Manifest) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in manifest.split_counts.items())
    modalities = ", ".join(m.name for m in manifest.sources)
    models = {METHOD: "**DRAF**", **{b: b for b in BASELINES}}
    return [
        f"### {name}",
        f"Layout `{manifest.name}`, {counts} samples; modalities {modalities}; fingerprint "
        f"`{manifest.fingerprint[:12]}`.",
        _table({label: arms[key] for key, label in models.items()}),
        f"#### {name}: DRAF without its parts",
        _table({"**DRAF**": arms[METHOD], **{t: arms[a] for a, t in ABLATIONS.items()}}),
        _ablation_tests(arms),
    ]


def _table(arms: Mapping[str, Arm]) -> str:
    shown = {
        column: figure
        for column, figure in COLUMNS.items()
        if any(np.isfinite(arm.values(figure)).any() for arm in arms.values())
    }
    lines = [f"| | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
    for name, arm in arms.items():
        cells = [_cell(summarise(arm.values(figure))) for figure in shown.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ablation_tests(arms: dict[str, Arm]) -> str:
    """Each ablation less the whole, on what the study searches for."""
    pairs = [
        (text, metric, arms[name].values(_metric(metric)), arms[METHOD].values(_metric(metric)))
        for name, text in ABLATIONS.items()
        for metric in ("corrupted.auroc", "corrupted.ece")
    ]
    tests = [paired_t_test(mine, theirs) for _, _, mine, theirs in pairs]
    lines = ["| without | figure | difference | p (Holm) |", "|---|---|---|---|"]
    for (text, metric, _, _), test, p in zip(
        pairs, tests, holm([test.p for test in tests]), strict=True
    ):
        lines.append(f"| {text} | {metric} | {test.difference:+.4f} | {_p(float(p))} |")
    return "\n".join(lines)


def _cell(value: Summary) -> str:
    if not value.n:
        return ""
    digits = 1 if abs(value.mean) >= 10 else 3
    return f"{value.mean:.{digits}f} ± {value.std:.{digits}f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    main()
