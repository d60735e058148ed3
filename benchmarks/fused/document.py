"""docs/results/fusion.md: the claims, and what every model and ablation came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comparing.claims import Claim
from comparing.document import claim_table, counted, interval, made_by, p_text, table
from comparing.figures import Arm, by_patient
from comparing.protocol import ComparisonResults

from fused.figures import BASELINES, CARD_COLUMNS, COLUMNS, METHOD, corrupted
from fused.models import CHOSEN_BY, COVERAGE
from trustsweep.data_pipelines.schema import Split
from trustsweep.distributed.statistics.inference import corrected_t_test, holm

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


def document(
    by_data: Mapping[str, ComparisonResults], claims: Sequence[Claim], candidates: int, seeds: int
) -> str:
    parts = [
        "# Reliability-aware fusion and its baselines",
        made_by("fusion.py"),
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
    for name, one in by_data.items():
        parts += _tables(name, one)
    return "\n\n".join(parts) + "\n"


def _summary(claims: Sequence[Claim]) -> str:
    lines = []
    for claim, text in _CLAIMS.items():
        rows = [c for c in claims if c.claim == claim]
        lines.append(f"- Claim {text.partition('.')[0]}, of {len(rows)} tests: {counted(rows)}.")
    return "\n".join(lines)


def _claim_tables(claims: Sequence[Claim]) -> list[str]:
    parts = []
    for claim, text in _CLAIMS.items():
        parts += [text, claim_table([c for c in claims if c.claim == claim], "DRAF")]
    return parts


def _tables(name: str, results: ComparisonResults) -> list[str]:
    first = results.manifests[0]
    patients = len({*results.tuned[METHOD].patients})
    train, test = results.sizes
    modalities = ", ".join(m.name for m in first.sources)
    outside = first.split_counts.get(Split.OOD, 0)
    site = f", {outside} samples of a site held out" if outside else ""
    parts = [
        f"### {name}",
        f"Layout `{first.name}`, {patients} patients; {len(results.manifests)} folds of {train} "
        f"training and {test} test samples{site}; modalities {modalities}; fingerprint of the "
        f"first fold `{first.fingerprint[:12]}`. Tuning moved {sum(results.moved.values())} of "
        f"{len(results.moved)} choices away from the defaults.",
    ]
    for title, arms in (("tuned", results.tuned), ("defaults", results.defaults)):
        shown = {METHOD: "**DRAF**", **{b: b for b in BASELINES}}
        parts += [
            f"#### {name}, {title}",
            table({label: arms[key] for key, label in shown.items()}, COLUMNS, CARD_COLUMNS),
        ]
    ablated = {
        text: results.defaults[key] for key, text in ABLATIONS.items() if key in results.defaults
    }
    if ablated:
        parts += [
            f"#### {name}: DRAF without its parts, at the defaults",
            table({"**DRAF**": results.defaults[METHOD], **ablated}, COLUMNS, CARD_COLUMNS),
            _ablation_tests(results.defaults[METHOD], ablated, results.sizes),
        ]
    return parts


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
        lines.append(
            f"| {text} | {name} | {interval(difference, signed=True)} | {p_text(float(p))} |"
        )
    return "\n".join(lines)
