"""docs/results/evidential.md: what does not hold, the claims, and what every model came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from comparing.claims import ALPHA, VERDICTS, Claim
from comparing.document import claim_table, counted, interval, made_by, number, table
from comparing.figures import Arm, by_patient, of_card
from comparing.protocol import Budget, ComparisonResults
from scipy import stats

from evidence.claims import BUDGETS, DROP, FLOOR, MARGIN, EvaluatedArms, trivial_dice
from evidence.figures import CARD_COLUMNS, CLEAN, COLUMNS, named, region_ece
from evidence.models import (
    ACE,
    CHOSEN_BY,
    CLASSICAL,
    EVIDENTIAL,
    NONE,
    RANDOM,
    UNCERTAIN,
    arm_of,
)

_CLAIMS = {
    "calibration": "1. Evidential segmentation is better calibrated than what is cheaper, at a "
    "Dice that is not lower. Tested: its debiased ECE around lesion and prediction, and its Brier "
    "score of all pixels, less the rival's: clean for models without defence, at ε .01 for models "
    "that were trained with attacks on a random half of each batch. A claim on it needs the low "
    f"end of the interval of the difference in Dice to lie above −{MARGIN}.",
    "guidance": "2. Attacking the most uncertain half of each batch makes a model more robust than "
    "a random half, the most certain half or none. Tested: Dice on lesions under the fast "
    f"ensemble, less the rival's. There is nothing to test where an attack takes less than {DROP} "
    f"of Dice from the model without defence, or leaves less than {FLOOR} to both models.",
    "uncertainty": "3. The uncertainty is useful. Tested: AURC (1 − Dice among the surest images) "
    "less that of another order of the same images, and AURC and AUSE less those of another "
    "uncertainty: the entropy of the same model's probability, which any model has, and the "
    "classical model's. Clean: without defence; ε .01: guided.",
}
_FORMS = {CLASSICAL: "classical", ACE: "mL1-ACE", EVIDENTIAL: "evidential"}


@dataclass(frozen=True)
class Result:
    """One data set.

    Attributes:
        comparison: The tuned arms and those at their defaults.
        cooled, by_entropy: The tuned arms with a temperature, and with the entropy of their
            probability as the uncertainty.
        fully: Tuned arms under the full ensemble; may be empty.
        config: The defaults of an arm that attacks.
        note: What a reader has to know of the data.
    """

    comparison: ComparisonResults
    cooled: Mapping[str, Arm]
    by_entropy: Mapping[str, Arm]
    fully: Mapping[str, Arm]
    budget: Budget
    config: Mapping[str, Any]
    note: str

    @property
    def evaluated_arms(self) -> EvaluatedArms:
        return EvaluatedArms(
            self.comparison.tuned, self.cooled, self.by_entropy, self.comparison.sizes
        )

    def fully_by_seed(self) -> dict[str, dict[str, list[list[float]]]]:
        """Dice under the full ensemble, by arm, budget, fold and seed."""
        return {
            arm: {budget: models.by_seed(named("dice_lesion", c)) for budget, c in BUDGETS.items()}
            for arm, models in self.fully.items()
        }


def document(results: Mapping[str, Result], claims: Sequence[Claim]) -> str:
    parts = [
        "# Evidential segmentation and uncertainty-driven adversarial training",
        made_by("evidential.py"),
        "## What does not hold",
        _summary(claims),
        *(part(name, one) for name, one in results.items() for part in (_blind, _gap)),
        "## How it was compared",
        _protocol(results, claims),
        "## The claims",
    ]
    for claim, text in _CLAIMS.items():
        parts += [text, claim_table([c for c in claims if c.claim == claim], "method")]
    parts += [
        "## Figures",
        "Dice: mean over the images with a lesion. ECE: debiased, of the pixels around lesion "
        "and prediction; its floor: what perfect calibration would show with so few images. "
        "False alarms: share of the images without a lesion where one is predicted. AUSE: of "
        "the pixels of each image, error |y − p|; a model that is sure of no pixel has an error "
        "everywhere, of which any order is good, so that dividing the same scores by T moves "
        "it: it compares orders of one model, not models. AURC: 1 − Dice of the images, surest "
        "first. Lower is better but for Dice. Intervals are of the mean over folds by patient "
        "bootstrap; resampling adds to a calibration error, so that its interval may lie above "
        "it. T: the temperature fitted on validation.",
    ]
    for name, one in results.items():
        parts += _tables(name, one)
    return "\n\n".join(parts) + "\n"


def _summary(claims: Sequence[Claim]) -> str:
    """The verdicts by claim and, in words, every test that did not come out as claimed."""
    lines = []
    for claim, text in _CLAIMS.items():
        tests = [c for c in claims if c.claim == claim]
        first = text.partition(" Tested")[0]
        lines.append(f"- {first} Of {len(tests)} tests, {counted(tests)} (rivals in brackets).")
        for verdict in VERDICTS:
            rivals: dict[tuple[str, str], list[str]] = defaultdict(list)
            for c in tests:
                if c.verdict == verdict:
                    rivals[c.data, c.of].append(c.against)
            cells = [f"{data}: {of} ({', '.join(names)})" for (data, of), names in rivals.items()]
            if cells:
                lines.append(f"    - {verdict}: {'; '.join(cells)}.")
    return "\n".join(lines)


def _blind(name: str, one: Result) -> str:
    """The best arm under each condition beside the mask that ignores the image."""
    mask = trivial_dice(one.comparison.tuned[arm_of(CLASSICAL, NONE)])
    best = []
    for where, condition in ((CLEAN, CLEAN), *BUDGETS.items()):
        figure = named("dice_lesion", condition)
        heights = {arm: float(np.mean(a.values(figure))) for arm, a in one.comparison.tuned.items()}
        arm = max(heights, key=heights.__getitem__)
        best.append(f"{where} {heights[arm]:.3f} ({_label(arm)})")
    return (
        f"Dice on lesions on {name}, the best of all arms: {', '.join(best)}; of the best fixed "
        f"mask, which ignores the image and any attack on it: {mask:.3f}."
    )


def _gap(name: str, one: Result) -> str:
    """Whether tuning and a temperature close the gap between the forms, in figures."""
    figure, bare = region_ece(), {f: arm_of(f, NONE) for f in _FORMS}
    models = {
        "classical at its defaults": one.comparison.defaults[bare[CLASSICAL]],
        "tuned": one.comparison.tuned[bare[CLASSICAL]],
        "tuned + T": one.cooled[bare[CLASSICAL]],
        "mL1-ACE tuned": one.comparison.tuned[bare[ACE]],
        "mL1-ACE tuned + T": one.cooled[bare[ACE]],
        "evidential at its defaults": one.comparison.defaults[bare[EVIDENTIAL]],
        "evidential tuned": one.comparison.tuned[bare[EVIDENTIAL]],
        "evidential tuned + T": one.cooled[bare[EVIDENTIAL]],
    }
    listed = ", ".join(f"{label} {np.mean(a.values(figure)):.3f}" for label, a in models.items())
    return f"Clean ECE on {name}, without defence: {listed}."


def _protocol(results: Mapping[str, Result], claims: Sequence[Claim]) -> str:
    config = next(iter(results.values())).config
    spent = "; ".join(
        f"{name}: {one.budget.folds} folds, {one.budget.candidates} configurations, "
        f"{one.budget.seeds} {'seed' if one.budget.seeds == 1 else 'seeds'}, "
        f"{one.config['epochs']} epochs, batches of {one.config['batch_size']}"
        for name, one in results.items()
    )
    folds = min(one.budget.folds for one in results.values())
    ratio = max(one.comparison.sizes[1] / one.comparison.sizes[0] for one in results.values())
    needed = stats.t.ppf(1 - ALPHA / 2 / len(claims), folds - 1) * np.sqrt(1 / folds + ratio)
    alone = stats.t.ppf(1 - ALPHA / 2, folds - 1) * np.sqrt(1 / folds + ratio)
    return (
        f"Every arm has the same U-Net (width {config['width']}), optimiser, epochs, folds and "
        "seeds, and the same tuning budget: on each fold its defaults and random draws of what its "
        "method brings (classical: weight of the Dice loss; mL1-ACE: its own weight as well; "
        "evidential: risk, KL weight and weight of the Dice loss), of which the one with the least "
        f"mean of `{CHOSEN_BY[0]}` and `{CHOSEN_BY[1]}` on validation is trained again under "
        "another seed and judged on the test images of the fold. Every patient is a test patient "
        f"of one fold. Regimes that attack have the same budget: PGD-{config['attack_steps']} at "
        f"ε {config['epsilon']} on {config['attack_fraction']:.0%} of each batch. + T: scores "
        "divided by a temperature fitted on clean validation images. Attacked: the fast ensemble, "
        "ε on the [0, 1] pixel scale; corrupted: Gaussian noise and lower contrast of "
        "severity 3.\n\n"
        f"What was shrunk to fit a CPU: 64 pixels and {spent}.\n\n"
        "Intervals (95 %) are by patient bootstrap of the mean over folds and seeds. p is of the "
        "corrected t-test over folds (Nadeau & Bengio 2003), Holm-adjusted over all tests of this "
        f"document ({len(claims)}). A claim is held where the adjusted p is below .05 and the "
        "interval of what is tested lies on its side of 0. Calibration and uncertainty cannot be "
        "tested where no model of the pair segments better than the best fixed mask, which ignores "
        "the image: a constant answer is perfectly calibrated. With "
        f"{folds} folds a difference has to be {alone:.1f} times its standard deviation over folds "
        f"for p < .05, and {needed:.1f} times for the first of Holm's steps: small effects cannot "
        "be shown here."
    )


def _tables(name: str, one: Result) -> list[str]:
    comparison = one.comparison
    first = comparison.manifests[0]
    train, test = comparison.sizes
    patients = len({who for _, who in comparison.tuned[arm_of(CLASSICAL, NONE)].patients})
    parts = [
        f"### {name}",
        f"Layout `{first.name}`, {patients} patients (known from: "
        f"{first.preprocessing.get('patients', 'not said')}); {len(comparison.manifests)} folds of "
        f"{train} training and {test} test images; fingerprint of the first fold "
        f"`{first.fingerprint[:12]}`. {one.note}Tuning moved {sum(comparison.moved.values())} of "
        f"{len(comparison.moved)} choices away from the defaults.",
        _trivial(comparison),
        f"#### {name}, tuned",
        table(
            {_label(arm): models for arm, models in comparison.tuned.items()}, COLUMNS, CARD_COLUMNS
        ),
        f"#### {name}, tuned, with a temperature",
        table({f"{_label(arm)} + T": m for arm, m in one.cooled.items()}, COLUMNS, {}),
        f"#### {name}, at the defaults",
        table({_label(arm): m for arm, m in comparison.defaults.items()}, COLUMNS, CARD_COLUMNS),
    ]
    if one.fully:
        parts += [f"#### {name}: Dice under the full ensemble", _full(one)]
    return parts


def _label(arm: str) -> str:
    form, _, regime = arm.partition("-")
    return _FORMS[form] if regime == NONE else f"{_FORMS[form]}, {regime}"


def _trivial(comparison: ComparisonResults) -> str:
    """What ignores the image, means over folds."""
    models = [model for fold in comparison.tuned[arm_of(CLASSICAL, NONE)].folds for model in fold]
    names = ("dice_lesion", "dice", "brier")
    lines = ["| ignores the image | Dice | Dice, all images | Brier |", "|---|---|---|---|"]
    for predictor in models[0].card["trivial"]:
        means = [
            float(np.mean([of_card("trivial", predictor, name)(m) for m in models]))
            for name in names
        ]
        lines.append(f"| {predictor} | {' | '.join(number(mean) for mean in means)} |")
    return "\n".join(lines)


def _full(one: Result) -> str:
    lines = ["| | ε | fast | full | guided less random, full |", "|---|---|---|---|---|"]
    for arm, models in one.fully.items():
        form, _, regime = arm.partition("-")
        for budget, condition in BUDGETS.items():
            figure = named("dice_lesion", condition)
            gain = ""
            if regime == UNCERTAIN:
                other = one.fully[arm_of(form, RANDOM)]
                gain = interval(by_patient(models, figure, other), signed=True)
            cells = (interval(by_patient(m, figure)) for m in (one.comparison.tuned[arm], models))
            lines.append(f"| {_label(arm)} | {budget[2:]} | {' | '.join(cells)} | {gain} |")
    return "\n".join(lines)
