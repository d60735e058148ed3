"""benchmarks/evidential.py: figures against the metrics, claims that hold and that do not."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing.claims import HELD, NOT_HELD, NOT_TESTABLE
from comparing.figures import Arm, by_patient
from comparing.models import EvaluatedModel
from evidence.claims import EvaluatedArms, evaluate_claims
from evidence.figures import CLEAN, LARGE, SMALL, area, aurc, fixed_mask, region_ece, risk
from evidence.models import (
    ACE,
    CERTAIN,
    CLASSICAL,
    EVIDENTIAL,
    NONE,
    RANDOM,
    UNCERTAIN,
    arm_of,
    configs,
    drawn,
)
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.calibration import CALIBRATION_BINS
from trustsweep.trainables.metrics.sparsification import mean_risks
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import task_named

ROOT = Path(__file__).parents[2]
SIZE, PIXELS, FIXED = 60, 1000, 0.2
REGIMES = (NONE, RANDOM, UNCERTAIN, CERTAIN)


def columns(
    rng: np.random.Generator, dice: float, off: float, *, knows: float = 1.0
) -> dict[str, np.ndarray]:
    """Images of a mean Dice, each bin's confidence off by so much; `knows` = 0 for no uncertainty
    about what is wrong."""
    own = np.clip(dice + 0.1 * rng.normal(size=SIZE), 0, 1)
    gap = np.zeros((SIZE, CALIBRATION_BINS))
    gap[:, -1] = PIXELS * (off + 0.02 * rng.normal(size=SIZE))
    return {
        "dice": own, "lesion_pixels": np.full(SIZE, 100.0),
        "predicted_pixels": rng.uniform(50, 150, SIZE), "pixels": np.full(SIZE, 4.0 * PIXELS),
        "uncertainty": knows * (1 - own) + rng.normal(size=SIZE) * (0.02 if knows else 1),
        "brier": np.clip(off + 0.01 * rng.normal(size=SIZE), 0, 1),
        "ause": np.clip(1 - 0.8 * knows + 0.02 * rng.normal(size=SIZE), 0, None),
        "region_pixels": np.full(SIZE, float(PIXELS)), "region_gap": gap,
    }  # fmt: skip


def arm(clean: float, small: float, large: float, off: float = 0.1, knows: float = 1.0) -> Arm:
    folds = []
    for seed in range(5):
        # Arms do not share their noise: a constant difference is no test.
        rng = np.random.default_rng([seed, *(round(1000 * v) for v in (off, knows, small))])
        heights = {CLEAN: clean, SMALL: small, LARGE: large}
        scores = {c: columns(rng, height, off, knows=knows) for c, height in heights.items()}
        card = {"trivial": {"fixed mask": {"dice_lesion": FIXED}}}
        folds.append([EvaluatedModel(card, scores, [f"p{i // 2}" for i in range(SIZE)])])
    return Arm(folds)


def told(
    evidential: float = 0.05, *, guided: float = 0.6, classical: float = 0.7, knows: float = 1.0
) -> EvaluatedArms:
    """With the evidential arms' miscalibration, all rivals' being .2, what guidance keeps of Dice
    under attack, where chance keeps .45, the classical arms' Dice, and what the evidential
    uncertainty knows."""
    kept = {NONE: 0.0, RANDOM: 0.45, UNCERTAIN: guided, CERTAIN: 0.4}
    own = {
        arm_of(form, regime): (
            arm(0.7, kept[regime], kept[regime], evidential, knows)
            if form == EVIDENTIAL
            else arm(classical, kept[regime], kept[regime], 0.2, 0.5)
        )
        for form in (CLASSICAL, ACE, EVIDENTIAL)
        for regime in REGIMES
    }
    by_entropy = {name: arm(0.7, 0.0, 0.0, evidential, 0.5) for name in own}
    return EvaluatedArms(own, own, by_entropy, (400, 100))


def verdicts(evaluated_arms: EvaluatedArms) -> dict[tuple[str, str, str], str]:
    claims = evaluate_claims({"toy": evaluated_arms})
    assert len({(c.claim, c.of, c.against) for c in claims}) == len(claims)
    return {(c.claim, c.of, c.against): c.verdict for c in claims}


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_an_area_of_weights_is_that_of_repeated_images(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    error, score = rng.random(n), rng.integers(0, 4, n).astype(float)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=3)
    found = area(error, score)(weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        again = (torch.from_numpy(np.repeat(v, row))[None] for v in (error, score))
        assert value == pytest.approx(float(mean_risks(*again)[0]), abs=1e-12)


def test_figures_of_samples_are_those_of_the_streaming_metrics() -> None:
    scores = SampleScores(task_named(TaskName.SEGMENTATION))
    evaluation = Evaluation(EvaluationPlan(), task_named(TaskName.SEGMENTATION), scores=scores)
    generator = torch.Generator().manual_seed(0)
    for first in range(0, 40, 8):
        p = torch.rand((8, 1, 16, 16), generator=generator)
        mask = (torch.rand((8, 1, 16, 16), generator=generator) < p**2).float()
        mask[0] = 0
        batch = Batch(
            sample_id=tuple(f"s{first + i}" for i in range(8)),
            image=torch.zeros(8, 1, 16, 16),
            mask=mask,
        )
        doubt = (p * (1 - p)).squeeze(1)
        evaluation.update(CLEAN, Prediction.from_probability(p, {"entropy": doubt}), batch)
    metrics = evaluation.compute()
    model = EvaluatedModel({}, {CLEAN: scores.columns(CLEAN)}, [f"p{i}" for i in range(40)])
    one = Arm([[model]])
    expected = {
        "ece_region_debiased": region_ece(),
        "aurc": aurc(),
        "dice": lambda m: lambda weights: 1 - risk()(m)(weights),
    }
    for name, figure in expected.items():
        assert one.values(figure) == pytest.approx([metrics[f"clean.{name}"]], abs=1e-9), name


def test_the_order_of_images_is_worth_nothing_where_uncertainty_knows_nothing() -> None:
    one = arm(0.7, 0.0, 0.0, knows=0.0)
    gain = by_patient(one, aurc(), one, against=risk())
    assert gain.low < 0 < gain.high
    assert by_patient(sure := arm(0.7, 0, 0), aurc(), sure, against=risk()).high < 0


def test_claims_hold_where_they_are_true() -> None:
    found = verdicts(told())
    assert {v for (claim, *_), v in found.items() if claim == "calibration"} == {HELD}
    assert found["guidance", "evidential, ε .01", RANDOM] == HELD
    assert found["guidance", "classical, ε .02", NONE] == HELD
    assert found["uncertainty", "AURC, clean", "random order"] == HELD
    assert found["uncertainty", "AUSE, clean", "its own entropy"] == HELD


def test_claims_do_not_hold_where_nothing_is_better() -> None:
    found = verdicts(told(0.2, guided=0.45, knows=0.5))
    assert {v for (claim, *_), v in found.items() if claim == "calibration"} == {NOT_HELD}
    assert found["guidance", "evidential, ε .01", RANDOM] == NOT_HELD
    assert found["uncertainty", "AUSE, clean", "its own entropy"] == NOT_HELD


def test_better_calibration_at_a_lower_dice_is_not_the_claim() -> None:
    found = verdicts(told(classical=0.8))
    assert found["calibration", "ECE, clean", "mL1-ACE"] == NOT_HELD
    assert found["calibration", "ECE, ε .01", "mL1-ACE"] == HELD


def test_models_that_do_not_segment_leave_nothing_to_test() -> None:
    floored = verdicts(told(guided=0.03))
    assert floored["guidance", "evidential, ε .01", RANDOM] == NOT_HELD
    assert floored["guidance", "evidential, ε .01", NONE] == NOT_TESTABLE
    # Above the floor, but no better than a mask that ignores the image.
    low = verdicts(told(guided=0.1))
    assert low["guidance", "evidential, ε .01", NONE] == HELD
    assert low["uncertainty", "AURC, ε .01", "random order"] == NOT_TESTABLE
    evaluated_arms = told()
    unhurt = {**evaluated_arms.own, arm_of(CLASSICAL, NONE): arm(0.7, 0.69, 0.66)}
    found = verdicts(
        EvaluatedArms(unhurt, evaluated_arms.cooled, evaluated_arms.by_entropy, evaluated_arms.size)
    )
    assert {
        v for (claim, of, _), v in found.items() if claim == "guidance" and "classical" in of
    } == {NOT_TESTABLE}
    assert fixed_mask(evaluated_arms.own[arm_of(ACE, NONE)].folds[0][0]) == FIXED


def test_candidates_differ_in_what_their_method_brings_alone() -> None:
    arms = configs(["space.epochs=2"])
    own = {
        CLASSICAL: {"dice_weight"},
        ACE: {"dice_weight", "ace_weight"},
        EVIDENTIAL: {"dice_weight", "kl_weight", "risk"},
    }
    for name, defaults in arms.items():
        made = drawn(arms, ["space.epochs=2"], 6, name, 1)
        assert made[0] == defaults
        assert {config["regime"] for config in made} == {name.partition("-")[2]}
        differing = {k for k in defaults for config in made if config[k] != defaults[k]}
        assert differing == own[name.partition("-")[0]], name


@pytest.mark.slow
def test_quick_run_writes_its_document_and_trains_nothing_twice(tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "evidential.py"), "--quick",
        "--out", str(tmp_path / "out"), "--json", str(tmp_path / "evidential.json"),
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    figures = json.loads((tmp_path / "evidential.json").read_text())["sets"]["phantoms"]
    assert len(figures["fingerprints"]) == 3
    for kind in ("tuned", "cooled"):
        assert set(figures[kind]) == set(configs([]))
        assert all(len(folds) == 3 for row in figures[kind].values() for folds in row.values())
    text = (tmp_path / "out" / "evidential.md").read_text()
    assert text.index("What does not hold") < text.index("How it was compared")
    models = sorted((tmp_path / "out" / "models").rglob("*.json"))
    times = [path.stat().st_mtime_ns for path in models]
    again = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in models] == times
    assert (tmp_path / "out" / "evidential.md").read_text() == text
