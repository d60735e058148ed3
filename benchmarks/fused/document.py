"""docs/results/fusion.md: the claims, and what every model and ablation came to."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from data_pipelines.schema import Manifest
from distributed.statistics import Summary, holm, paired_t_test, summarise
from distributed.version import VERSION
from fused.claims import Claim
from fused.figures import BASELINES, COLUMNS, COVERAGE, METHOD, Arm, metric

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
    "baseline drops by more than 10 % (mean over every corruption and severity, in % of the "
    "clean AUROC).",
    "calibration": "2. ECE is at least 30 % below that of deterministic fusion (clean test split).",
    "abstention": f"3. Abstention raises precision (macro; threshold of the {COVERAGE:.0%} surest "
    "of the validation split).",
    "reliability": "4. The weights follow quality (Spearman's ρ of r_m and the severity of each "
    "modality's corruption, mean over the samples' own, below 0).",
}


def document(
    found: dict[str, dict[str, Arm]], manifests: dict[str, Manifest], claims: Sequence[Claim]
) -> str:
    parts = [
        "# Reliability-aware fusion and its baselines",
        f"Made by `benchmarks/fusion.py` with trustsweep {VERSION}, torch {torch.__version__} on "
        f"{platform.machine()}; do not edit.",
        "Every model has the same encoders, optimiser, number of epochs and training corruptions, "
        "and its method's own parameters at their defaults: nothing was tuned, for any of them. "
        f"Mean ± standard deviation (ddof 1) over seeds {_seeds(found)}, on the test split; where "
        "a site was held out, on all of it. The splits are one draw: the seeds vary training "
        "alone, so what the tests show holds for these patients.",
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
    parts = [
        f"### {name}",
        f"Layout `{manifest.name}`, {counts} samples; modalities {modalities}; fingerprint "
        f"`{manifest.fingerprint[:12]}`.",
        _table({label: arms[key] for key, label in models.items()}),
    ]
    ablated = {text: arms[key] for key, text in ABLATIONS.items() if key in arms}
    if ablated:
        parts += [
            f"#### {name}: DRAF without its parts",
            _table({"**DRAF**": arms[METHOD], **ablated}),
            _ablation_tests(arms[METHOD], ablated),
        ]
    return parts


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


def _ablation_tests(whole: Arm, ablated: Mapping[str, Arm]) -> str:
    """Each ablation less the whole, on what the study searches for."""
    pairs = [
        (text, name, arm.values(metric(name)), whole.values(metric(name)))
        for text, arm in ablated.items()
        for name in ("corrupted.auroc", "corrupted.ece")
    ]
    tests = [paired_t_test(mine, theirs) for _, _, mine, theirs in pairs]
    adjusted = holm([test.p for test in tests])
    lines = ["| without | figure | difference | p (Holm) |", "|---|---|---|---|"]
    lines += [
        f"| {text} | {name} | {test.difference:+.4f} | {_p(float(p))} |"
        for (text, name, _, _), test, p in zip(pairs, tests, adjusted, strict=True)
    ]
    return "\n".join(lines)


def _cell(value: Summary) -> str:
    if not value.n:
        return ""
    digits = 1 if abs(value.mean) >= 10 else 3
    return f"{value.mean:.{digits}f} ± {value.std:.{digits}f}"


def _seeds(found: dict[str, dict[str, Arm]]) -> str:
    seeds = {seed for arms in found.values() for arm in arms.values() for seed in arm.cards}
    return ", ".join(map(str, sorted(seeds)))


def _p(value: float) -> str:
    if math.isnan(value):
        return "not tested"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
