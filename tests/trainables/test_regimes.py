"""Which images a regime attacks, at what budget, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.regimes import RegimeResult, attacked_rows, from_config
from trustsweep.trainables.registry import REGIMES
from trustsweep.trainables.uncertainty import image_score
from trustsweep.trainables.unet import EvidentialUNet

torch.set_num_threads(1)
NOW = Progress(3, 6)
SIZE = 8
CONFIG = {
    "attack_fraction": 0.5,
    "attack": "pgd",
    "epsilon": 0.05,
    "attack_steps": 2,
    "selection_measure": "default",
    "selection_score": "mean",
    "width": 2,
    "dice_weight": 0.5,
    "risk": "cross-entropy",
    "kl_weight": 0.1,
    "kl_anneal_epochs": 10,
}
selecting = pytest.mark.parametrize("regime", ["random", "uncertain", "certain"])
every = pytest.mark.parametrize("regime", REGIMES)


@dataclass
class Setting:
    model: EvidentialUNet
    network: nn.Module
    batch: Batch

    def run(self, regime: str, *, seed: int = 0, step: int = 1, **changes: Any) -> RegimeResult:
        built = from_config({**CONFIG, **changes, "regime": regime})
        seeds = torch.arange(SIZE) + 1000 * seed
        return built(self.model, self.network, self.batch, seeds=seeds, step=step)


@pytest.fixture
def setting() -> Setting:
    manifest = Manifest(
        name="toy",
        tasks=(TaskName.SEGMENTATION,),
        image_shape=(1, 16, 16),
        image_scale=1.0,
        classes=("background", "lesion"),
        mean=(0.4,),
        std=(0.2,),
        split_counts={},
        columns={},
        fingerprint="0",
    )
    torch.manual_seed(0)
    model = EvidentialUNet(CONFIG, manifest)
    image = torch.rand(SIZE, 1, 16, 16) * torch.linspace(0.2, 1, SIZE).view(-1, 1, 1, 1)
    mask = (image > 0.5).float()
    data = Batch(sample_id=tuple(map(str, range(SIZE))), image=image, mask=mask)
    return Setting(model, model.network().train(), data)


def moved(result: RegimeResult, batch: Batch) -> Tensor:
    return (result.batch.image - batch.image).abs().flatten(1).amax(1)


@every
def test_exactly_the_reported_rows_move_inside_the_ball(regime: str, setting: Setting) -> None:
    result = setting.run(regime)
    distance = moved(result, setting.batch)
    assert tuple(torch.nonzero(distance).flatten().tolist()) == result.rows
    assert bool((distance <= 0.05 + 1e-6).all())
    assert result.batch.image.min() >= 0
    assert result.batch.image.max() <= 1
    assert result.batch.sample_id == setting.batch.sample_id
    assert result.batch.mask is setting.batch.mask
    assert result.gradients == 2 * len(result.rows)


@every
def test_network_is_left_as_found(regime: str, setting: Setting) -> None:
    before = {k: v.clone() for k, v in setting.network.state_dict().items()}
    setting.run(regime)
    assert all(m.training for m in setting.network.modules())
    assert all(p.requires_grad and p.grad is None for p in setting.network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in setting.network.state_dict().items())


@every
def test_network_is_asked_in_evaluation_mode(regime: str, setting: Setting) -> None:
    modes: list[bool] = []
    setting.network.register_forward_hook(lambda module, *_: modes.append(module.training))
    setting.run(regime)
    assert modes == [False] * len(modes)
    assert len(modes) == {"none": 0, "uncertain": 3, "certain": 3}.get(regime, 2)


@every
def test_training_after_it_under_one_autocast_learns(regime: str, setting: Setting) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = setting.run(regime)
        setting.model.loss(setting.network, result.batch, NOW).total.backward()
    assert all(p.grad is not None for p in setting.network.parameters())


@selecting
@pytest.mark.parametrize(("fraction", "rows"), [(0.01, 1), (0.25, 2), (0.3, 3), (0.5, 4), (0.9, 8)])
def test_selecting_regimes_have_one_budget(
    regime: str, fraction: float, rows: int, setting: Setting
) -> None:
    result = setting.run(regime, attack_fraction=fraction)
    assert len(result.rows) == rows
    assert result.gradients == 2 * rows


@selecting
def test_whole_fraction_is_standard_adversarial_training(regime: str, setting: Setting) -> None:
    result, whole = setting.run(regime, attack_fraction=1), setting.run("all")
    assert result.rows == whole.rows == tuple(range(SIZE))
    assert torch.equal(result.batch.image, whole.batch.image)


@selecting
@pytest.mark.parametrize("nothing", [{"attack_fraction": 0}, {"epsilon": 0}])
def test_no_fraction_or_no_radius_is_clean_training(
    regime: str, nothing: dict, setting: Setting
) -> None:
    result, clean = setting.run(regime, **nothing), setting.run("none")
    assert result.rows == clean.rows == ()
    assert result.gradients == clean.gradients == 0
    assert result.batch is clean.batch is setting.batch


@pytest.mark.parametrize("score", ["mean", "max", "top", "share"])
@pytest.mark.parametrize("measure", ["default", "entropy", "mutual-information"])
def test_uncertain_and_certain_take_the_two_ends(
    score: str, measure: str, setting: Setting
) -> None:
    changes = {"selection_score": score, "selection_measure": measure, "attack_fraction": 0.25}
    top = setting.run("uncertain", **changes)
    bottom = setting.run("certain", **changes)
    setting.network.eval()
    with torch.no_grad():
        maps = setting.model.predict(setting.network, setting.batch).uncertainty
    name = "vacuity" if measure == "default" else measure
    expected = image_score(score, maps[name], measure=name)
    assert top.score is not None
    torch.testing.assert_close(top.score, expected)
    chosen = torch.zeros(SIZE, dtype=torch.bool)
    chosen[list(top.rows)] = True
    assert expected[chosen].min() >= expected[~chosen].max()
    chosen[:] = False
    chosen[list(bottom.rows)] = True
    assert expected[chosen].max() <= expected[~chosen].min()


@given(
    scores=st.lists(st.integers(-5, 5), min_size=SIZE, max_size=SIZE),
    regime=st.sampled_from(["uncertain", "certain"]),
    fraction=st.floats(0.0, 1.0),
)
def test_selection_depends_on_ranks_alone(scores: list[int], regime: str, fraction: float) -> None:
    built = from_config({**CONFIG, "regime": regime, "attack_fraction": fraction})
    plain, seeds = torch.tensor(scores, dtype=torch.float32), torch.arange(SIZE)
    rows = built.choose(SIZE, plain, seeds, 0)
    for transform in (torch.exp, torch.sigmoid, lambda u: 3 * u - 7, lambda u: u**3):
        assert built.choose(SIZE, transform(plain), seeds, 0) == rows


def test_ties_fall_at_random_and_evenly() -> None:
    built = from_config({**CONFIG, "regime": "uncertain"})
    counts = torch.zeros(SIZE)
    for epoch in range(400):
        seeds = torch.arange(SIZE) + 1000 * epoch
        counts[list(built.choose(SIZE, torch.zeros(SIZE), seeds, 0))] += 1
    # Each row is chosen with probability ½: 200 ± 4 standard deviations of 10.
    assert bool(((counts - 200).abs() < 40).all())


def test_random_selection_is_seeded_per_row(setting: Setting) -> None:
    assert setting.run("random", seed=1).rows == setting.run("random", seed=1).rows
    assert len({setting.run("random", seed=seed).rows for seed in range(20)}) > 10


def test_random_selection_without_seeds_follows_the_global_generator(setting: Setting) -> None:
    built = from_config({**CONFIG, "regime": "random"})
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(built(setting.model, setting.network, setting.batch))
    assert found[0].rows == found[1].rows
    assert torch.equal(found[0].batch.image, found[1].batch.image)


def test_only_ranking_regimes_ask_for_the_uncertainty(setting: Setting) -> None:
    scored = {name for name in REGIMES if setting.run(name).score is not None}
    assert scored == {"uncertain", "certain"}


def test_alternating_takes_turns(setting: Setting) -> None:
    counts = [len(setting.run("alternating", step=step).rows) for step in range(4)]
    assert counts == [0, SIZE, 0, SIZE]


def test_a_schedule_may_set_the_radius(setting: Setting) -> None:
    built = from_config({**CONFIG, "regime": "all"})
    result = built(setting.model, setting.network, setting.batch, epsilon=0.2)
    assert moved(result, setting.batch).max() > 0.1


def test_attack_raises_the_training_loss(setting: Setting) -> None:
    result = setting.run("all", attack_steps=5)
    setting.network.eval()
    with torch.no_grad():
        before = setting.model.loss(setting.network, setting.batch, NOW).per_sample
        after = setting.model.loss(setting.network, result.batch, NOW).per_sample
    assert bool((after > before).all())


@given(size=st.integers(1, 512), percent=st.integers(0, 100))
@example(size=100, percent=7)  # 0.07 · 100 = 7.000000000000001
def test_rows_are_the_ceiling_of_the_fraction(size: int, percent: int) -> None:
    assert attacked_rows(size, percent / 100) == -(-size * percent // 100)


@pytest.mark.parametrize(
    "key", ["epsilon", "attack_fraction", "attack", "attack_steps", "selection_score"]
)
def test_missing_key_is_named(key: str) -> None:
    config = {k: v for k, v in CONFIG.items() if k != key}
    with pytest.raises(UserError, match=f"'{key}' is missing"):
        from_config({**config, "regime": "uncertain"})


def test_single_step_attacks_need_no_steps() -> None:
    config = {k: v for k, v in CONFIG.items() if k != "attack_steps"}
    attack = from_config({**config, "regime": "all", "attack": "fgsm"}).attack
    assert attack is not None
    assert attack.gradients == 1


def test_clean_training_needs_no_keys() -> None:
    from_config({"regime": "none"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epsilon", 1.2, "'epsilon' is 1.2, outside"),
        ("epsilon", -0.1, "'epsilon' is -0.1, outside"),
        ("attack_fraction", 1.01, "'attack_fraction' is 1.01, outside"),
        ("attack_fraction", math.nan, "'attack_fraction' must be a number"),
        ("attack", "pdg", "'attack' is 'pdg', did you mean 'pgd'"),
        ("attack_steps", 0, "'attack_steps' must be a whole number"),
        ("regime", "uncertian", "did you mean 'uncertain'"),
        ("selection_measure", "vacuty", "did you mean 'vacuity'"),
        ("selection_score", "median", "'selection_score' is 'median'"),
    ],
)
def test_bad_value_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_config({**CONFIG, "regime": "uncertain", key: value})


def test_measure_that_the_method_lacks_is_named(setting: Setting) -> None:
    with pytest.raises(UserError, match="'selection_measure' is 'bernoulli-variance'"):
        setting.run("uncertain", selection_measure="bernoulli-variance")
