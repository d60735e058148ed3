"""docs/results/fusion.md: the claims, and what every model and ablation came to."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch

from data_pipelines.schema import Manifest, Split
from distributed.statistics.inference import Estimate, corrected_t_test, holm
from distributed.version import VERSION
from fused.claims import HELD, NOT_HELD, NOT_TESTABLE, Claim
from fused.figures import (
    BASELINES,
    CARD_COLUMNS,
    COLUMNS,
    METHOD,
    Arm,
    by_patient,
    card_values,
    corrupted,
)
from fused.models import CHOSEN_BY, COVERAGE

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

_CLAIMS = {
    "drop": "1. AUROC drops by less than 5 % on corrupted or missing modalities, where that of a "
    "baseline drops by more than 10 % (mean over every corruption and severity, in % of the clean "
    "AUROC). Tested: DRAF's drop less the rival's.",
    "calibration": "2. ECE is at least 30 % below that of deterministic fusion (clean). Tested: "
    "DRAF's ECE less 0.7 times the rival's.",
    "abstention": f"3. Abstention raises precision (macro; the {COVERAGE:.0%} surest, by a "
    "threshold of the validation split). Tested: the gain, and the gain less the rival's, which "
    "abstains by its own uncertainty.",
    "reliability": "4. The weights follow quality (Spearman's ρ of r_m and the severity of each "
    "modality's corruption, mean over the samples' own). Tested: ρ below 0 and below the null of "
    "severities permuted within each sample.",
}


@dataclass(frozen=True)
class Told:
    """One data set.

    Attributes:
        manifests: Of the folds.
        tuned, defaults: By arm; the former without ablations.
        moved: By (arm, fold) whether tuning chose something else than the defaults.
    """

    manifests: Sequence[Manifest]
    tuned: Mapping[str, Arm]
    defaults: Mapping[str, Arm]
    moved: Mapping[tuple[str, str], bool]

    @property
    def sizes(self) -> tuple[int, int]:
        """Training and test samples of a fold, on average."""
        counts = [manifest.split_counts for manifest in self.manifests]
        return (
            round(mean(c[Split.TRAIN] for c in counts)),
            round(mean(c[Split.TEST] for c in counts)),
        )


def document(told: Mapping[str, Told], claims: Sequence[Claim], candidates: int, seeds: int) -> str:
    parts = [
        "# Reliability-aware fusion and its baselines",
        f"Made by `benchmarks/fusion.py` with trustsweep {VERSION}, torch {torch.__version__} on "
        f"{platform.machine()}; do not edit.",
        "## What does not hold",
        _summary(claims),
        "## How it was compared",
        "Every method has the same encoders, optimiser, epochs, training corruptions, splits and "
        f"seeds, and the same tuning budget: on each fold {candidates} configurations of its own "
        f"space, the defaults among them, of which the one with the least `{CHOSEN_BY}` on "
        "validation is trained again under "
        f"{'another seed' if seeds == 1 else f'{seeds} other seeds'} and judged on the test "
        "samples of the fold. Every patient is a test patient of one fold. Intervals (95 %) are "
        "by patient bootstrap of the mean over folds and seeds. p is of the corrected t-test over "
        "folds (Nadeau & Bengio 2003), Holm-adjusted over all tests of a claim. A claim is held "
        "where the adjusted p is below .05 and the interval of what is tested lies on its side "
        "of 0.",
        "## The proposal's claims",
        *_claim_tables(claims),
        "## Figures",
        "mixed quality: every modality is made worse on its own with probability 0.1 to 1, at a "
        "random severity; missing: p_miss 0.1 to 0.7; noise: Gaussian, of images or of values. "
        "Each is AUROC, the mean over five severities. drop %: of all of these against clean. "
        f"abstention: gain of precision at {COVERAGE:.0%}. ECE floor: what a perfectly calibrated "
        "model would show at this number of samples.",
    ]
    for name, one in told.items():
        parts += _tables(name, one)
    return "\n\n".join(parts) + "\n"


def _summary(claims: Sequence[Claim]) -> str:
    lines = []
    for claim, text in _CLAIMS.items():
        rows = [c for c in claims if c.claim == claim]
        counts = [
            f"{verdict}: {times}"
            for verdict in (NOT_HELD, NOT_TESTABLE, HELD)
            if (times := sum(c.verdict == verdict for c in rows))
        ]
        lines.append(
            f"- Claim {text.partition('.')[0]}, of {len(rows)} tests: {', '.join(counts)}."
        )
    return "\n".join(lines)


def _claim_tables(claims: Sequence[Claim]) -> list[str]:
    parts = []
    for claim, text in _CLAIMS.items():
        lines = [
            "| data | against | DRAF | other | tested | p | p (Holm) | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {c.data} | {c.against} | {c.method:.3f} | {c.other:.3f} | "
            f"{_interval(c.tested, signed=True)} | {_p(c.p)} | {_p(c.p_holm)} | {c.verdict} |"
            for c in claims
            if c.claim == claim
        ]
        parts += [text, "\n".join(lines)]
    return parts


def _tables(name: str, told: Told) -> list[str]:
    first = told.manifests[0]
    patients = len({*told.tuned[METHOD].patients})
    train, test = told.sizes
    modalities = ", ".join(m.name for m in first.sources)
    outside = first.split_counts.get(Split.OOD, 0)
    site = f", {outside} samples of a site held out" if outside else ""
    parts = [
        f"### {name}",
        f"Layout `{first.name}`, {patients} patients; {len(told.manifests)} folds of {train} "
        f"training and {test} test samples{site}; modalities {modalities}; fingerprint of the "
        f"first fold `{first.fingerprint[:12]}`. Tuning moved {sum(told.moved.values())} of "
        f"{len(told.moved)} choices away from the defaults.",
    ]
    for title, arms in (("tuned", told.tuned), ("defaults", told.defaults)):
        shown = {METHOD: "**DRAF**", **{b: b for b in BASELINES}}
        parts += [
            f"#### {name}, {title}",
            _table({label: arms[key] for key, label in shown.items()}),
        ]
    ablated = {text: told.defaults[key] for key, text in ABLATIONS.items() if key in told.defaults}
    if ablated:
        parts += [
            f"#### {name}: DRAF without its parts, at the defaults",
            _table({"**DRAF**": told.defaults[METHOD], **ablated}),
            _ablation_tests(told.defaults[METHOD], ablated, told.sizes),
        ]
    return parts


def _table(arms: Mapping[str, Arm]) -> str:
    cells = {
        name: [_interval(by_patient(arm, figure)) for figure in COLUMNS.values()]
        + [_number(float(np.mean(card_values(arm, path)))) for path in CARD_COLUMNS.values()]
        for name, arm in arms.items()
    }
    names = [*COLUMNS, *CARD_COLUMNS]
    kept = [i for i in range(len(names)) if any(row[i] for row in cells.values())]
    lines = [f"| | {' | '.join(names[i] for i in kept)} |", f"|---|{'---|' * len(kept)}"]
    lines += [f"| {name} | {' | '.join(row[i] for i in kept)} |" for name, row in cells.items()]
    return "\n".join(lines)


def _ablation_tests(whole: Arm, ablated: Mapping[str, Arm], sizes: tuple[int, int]) -> str:
    """Each ablation less the whole, on what the study searches for."""
    figures = {"AUROC, corrupted": corrupted("auroc"), "ECE, corrupted": corrupted("ece")}
    pairs = [(text, name, arm) for text, arm in ablated.items() for name in figures]
    tests = [
        corrected_t_test(
            arm.values(figures[name]), whole.values(figures[name]),
            n_train=sizes[0], n_test=sizes[1],
        )
        for _, name, arm in pairs
    ]  # fmt: skip
    adjusted = holm([test.p for test in tests])
    lines = ["| without | figure | difference | p (Holm) |", "|---|---|---|---|"]
    for (text, name, arm), p in zip(pairs, adjusted, strict=True):
        difference = by_patient(arm, figures[name], whole)
        lines.append(f"| {text} | {name} | {_interval(difference, signed=True)} | {_p(float(p))} |")
    return "\n".join(lines)


def _interval(value: Estimate, *, signed: bool = False) -> str:
    if math.isnan(value.value):
        return ""
    sign = "+" if signed else ""
    digits = 1 if abs(value.value) >= 10 else 3
    middle = f"{value.value:{sign}.{digits}f}"
    if math.isnan(value.low):
        return middle
    return f"{middle} ({value.low:{sign}.{digits}f} to {value.high:{sign}.{digits}f})"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "not tested"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
