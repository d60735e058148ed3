"""What the documents of comparisons have in common: counts of verdicts, tables, numbers."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from comparing.claims import VERDICTS, Claim
from comparing.figures import Arm, Figure, by_patient, card_values
from trustsweep.distributed.statistics.inference import Estimate
from trustsweep.distributed.version import VERSION


def made_by(script: str) -> str:
    return (
        f"Made by `benchmarks/{script}` with trustsweep {VERSION}, torch {torch.__version__} on "
        f"{platform.machine()}; do not edit."
    )


def counted(claims: Sequence[Claim]) -> str:
    """The verdicts and how often each was given: "not held: 3, held: 1"."""
    counts = [
        f"{verdict}: {times}"
        for verdict in VERDICTS
        if (times := sum(c.verdict == verdict for c in claims))
    ]
    return ", ".join(counts)


def claim_table(claims: Sequence[Claim], method: str) -> str:
    """A row for each; what is compared has a column where it is given."""
    named = any(c.of for c in claims)
    head = ["data", *(["of"] if named else []), "against", method, "other", "tested", "p"]
    lines = [f"| {' | '.join([*head, 'p (Holm)'])} | |", f"|{'---|' * (len(head) + 2)}"]
    for c in claims:
        cells = [c.data, *([c.of] if named else []), c.against]
        cells += [f"{c.method:.3f}", f"{c.other:.3f}", interval(c.tested, signed=True)]
        cells += [p_text(c.p), p_text(c.p_holm), c.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(
    arms: Mapping[str, Arm],
    columns: Mapping[str, Figure],
    card_columns: Mapping[str, tuple[str, ...]],
) -> str:
    """A row for each arm; columns without a number are left out."""
    cells = {
        name: [interval(by_patient(arm, figure)) for figure in columns.values()]
        + [number(float(np.mean(card_values(arm, path)))) for path in card_columns.values()]
        for name, arm in arms.items()
    }
    names = [*columns, *card_columns]
    kept = [i for i in range(len(names)) if any(row[i] for row in cells.values())]
    lines = [f"| | {' | '.join(names[i] for i in kept)} |", f"|---|{'---|' * len(kept)}"]
    lines += [f"| {name} | {' | '.join(row[i] for i in kept)} |" for name, row in cells.items()]
    return "\n".join(lines)


def interval(value: Estimate, *, signed: bool = False) -> str:
    if math.isnan(value.value):
        return ""
    sign = "+" if signed else ""
    digits = 1 if abs(value.value) >= 10 else 3
    middle = f"{value.value:{sign}.{digits}f}"
    if math.isnan(value.low):
        return middle
    return f"{middle} ({value.low:{sign}.{digits}f} to {value.high:{sign}.{digits}f})"


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def p_text(value: float) -> str:
    if math.isnan(value):
        return "not tested"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
