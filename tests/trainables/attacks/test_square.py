"""Square: the same search as torchattacks', by answers alone, of each sample by itself."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks import ScoreVictim, TrainingVictim, make_attack
from trustsweep.trainables.attacks.engine import Ball, Draws
from trustsweep.trainables.attacks.square import Square, _share, _sides
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress
from trustsweep.trainables.regimes import from_config
from trustsweep.trainables.registry import training_attacks

torch.set_num_threads(1)


class Plain(Method):
    """A classifier whose network answers in scores."""

    tasks = (TaskName.CLASSIFICATION,)
    uncertainties = ("entropy",)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(384, 4)
        )

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        assert batch.label is not None
        each = F.cross_entropy(network(batch.image), batch.label, reduction="none")
        return Loss(each.mean(), each)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        return Prediction(network(batch.image), {})


class Pixels(Plain):
    tasks = (TaskName.SEGMENTATION,)

    def network(self, dims: int = 2) -> nn.Module:
        torch.manual_seed(0)
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        return nn.Sequential(conv(1, 4, 3, padding=1), nn.Tanh(), conv(4, 1, 3, padding=1))


MANIFEST = Manifest(
    name="toy",
    tasks=tuple(TaskName),
    image_shape=(1, 8, 8),
    image_scale=1.0,
    classes=("a", "b", "c", "d"),
    mean=(0.5,),
    std=(0.3,),
    split_counts={},
    columns={},
    fingerprint="0",
)


def names(size: int) -> tuple[str, ...]:
    return tuple(map(str, range(size)))


def classes(size: int = 6, channels: int = 1) -> tuple[ScoreVictim, Batch]:
    """A victim and images that it gets right."""
    model = Plain({}, MANIFEST)
    network = model.network()
    if channels > 1:
        network[0] = nn.Conv2d(channels, 6, 3, padding=1)
    torch.manual_seed(1)
    image = torch.rand((size, channels, 8, 8))
    with torch.no_grad():
        label = network(image).argmax(1)
    return ScoreVictim(model, network), Batch(sample_id=names(size), image=image, label=label)


def pixels(*spatial: int, size: int = 4) -> tuple[ScoreVictim, Batch]:
    model = Pixels({}, MANIFEST)
    network = model.network(len(spatial))
    torch.manual_seed(1)
    image = torch.rand((size, 1, *spatial))
    mask = (torch.rand(image.shape) > 0.6).float()
    return ScoreVictim(model, network), Batch(sample_id=names(size), image=image, mask=mask)


def harm(victim: ScoreVictim, batch: Batch) -> Tensor:
    with torch.no_grad():
        return victim.look(batch)[1]


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("steps", [30, 300])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_torchattacks(channels: int, steps: int, epsilon: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    victim, data = classes(12, channels)
    peer = torchattacks.Square(victim.network, norm="Linf", eps=epsilon, n_queries=steps)
    peer.init_hyperparam(data.image)
    torch.manual_seed(5)
    _, found = peer.attack_single_run(data.image, data.label)
    torch.manual_seed(5)
    ours = Square(steps=steps)(victim, data, epsilon)
    # Theirs keeps the stripes even where the clean image is worse.
    theirs = data.with_image(found)
    worse = (harm(victim, theirs) > harm(victim, data)).view(-1, 1, 1, 1)
    torch.testing.assert_close(ours.image, torch.where(worse, found, data.image), atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    segmentation=st.booleans(),
    epsilon=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    steps=st.integers(1, 12),
    step_size=st.none() | st.floats(1e-3, 2),
    restarts=st.integers(1, 2),
    draws=st.integers(1, 2),
    seeded=st.booleans(),
)
def test_stays_in_the_ball_and_never_does_less_harm(
    segmentation: bool,
    epsilon: list[float],
    steps: int,
    step_size: float | None,
    restarts: int,
    draws: int,
    seeded: bool,
) -> None:
    victim, clean = pixels(8, 8) if segmentation else classes(4)
    attack = Square(steps=steps, step_size=step_size, restarts=restarts, draws=draws)
    seeds = torch.arange(4) if seeded else None
    radius = torch.tensor(epsilon)
    attacked = attack(victim, clean, radius, seeds=seeds)
    assert bool(((attacked.image - clean.image).abs().flatten(1).amax(1) <= radius + 1e-6).all())
    assert attacked.image.min() >= 0
    assert attacked.image.max() <= 1
    assert bool((harm(victim, attacked) >= harm(victim, clean) - 1e-6).all())


@pytest.mark.parametrize("spatial", [(12,), (8, 8), (9, 4), (6, 7, 5), (2, 9, 9)])
def test_any_number_of_dimensions(spatial: tuple[int, ...]) -> None:
    data = Batch(sample_id=names(3), image=torch.full((3, 2, *spatial), 0.5))

    class Brightness(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.flatten(1).sum(1)

    class Bright:
        """The brighter the worse: the worst image is known."""

        network = Brightness()

        def loss(self, batch: Batch) -> Tensor:
            return self.network(batch.image)

        def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
            return self.loss(batch), self.loss(batch).detach()

        def pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
            raise NotImplementedError

    attacked = Square(steps=400)(Bright(), data, 0.1, seeds=torch.arange(3))
    change = attacked.image - data.image
    assert change.amax() <= 0.1 + 1e-6
    # By chance alone, half of the pixels would be bright.
    assert (change > 0.099).float().mean() > 0.8


def test_segmentation_is_searched_to_the_end_in_three_dimensions() -> None:
    victim, data = pixels(6, 5, 7)
    few, many = (
        harm(victim, Square(steps=steps)(victim, data, 0.1, seeds=torch.arange(4)))
        for steps in (1, 100)
    )
    assert bool((few > 0).all())  # wrong somewhere already, as any answer of pixels is
    assert bool((many > few + 0.01).all())


def test_own_seeds_alone_decide() -> None:
    victim, data = classes(6)
    attack, seeds = Square(steps=40, restarts=2), torch.tensor([4, 9, 4, 2, 7, 1])
    together = attack(victim, data, 0.03, seeds=seeds)
    order = [5, 2]
    apart = attack(victim, data.select(order), 0.03, seeds=seeds[order])
    torch.testing.assert_close(together.image[order], apart.image, atol=1e-6, rtol=0)
    for row in range(6):
        alone = attack(victim, data, 0.03, rows=[row], seeds=seeds)
        torch.testing.assert_close(together.image[row], alone.image[row], atol=1e-6, rtol=0)
    other = attack(victim, data, 0.03, seeds=seeds + 100)
    assert bool((together.image != other.image).flatten(1).any(1).all())


def test_modes_and_the_global_generator_are_left_as_found() -> None:
    victim, data = classes()
    victim.network.train()
    state = torch.get_rng_state()
    Square(steps=5, restarts=2)(victim, data, 0.05, seeds=torch.arange(6))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in victim.network.modules())
    assert all(p.requires_grad and p.grad is None for p in victim.network.parameters())


class Counting(ScoreVictim):
    """How many samples were asked about."""

    asked = 0

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled()
        self.asked += len(batch)
        return super().look(batch)


@pytest.mark.parametrize(("restarts", "draws"), [(1, 1), (3, 2)])
def test_queries_are_counted_and_no_gradient_is_taken(restarts: int, draws: int) -> None:
    model = Pixels({}, MANIFEST)
    _, data = pixels(8, 8)
    # Three channels: a box seldom changes nothing, and then costs nothing.
    network = nn.Conv2d(3, 1, 1)
    data = dataclasses.replace(data, image=data.image.expand(-1, 3, -1, -1))
    victim = Counting(model, network)
    attack = Square(steps=7, restarts=restarts, draws=draws)
    attack(victim, data, 0.05, seeds=torch.arange(4))
    assert attack.gradients == 0
    assert attack.queries == (1 + restarts * 8) * draws
    assert 0.8 * 4 * attack.queries < victim.asked <= 4 * attack.queries


def test_wrong_answers_are_left_alone() -> None:
    ours, data = classes()
    assert data.label is not None
    wrong = dataclasses.replace(data, label=(data.label + 1) % 4)
    victim = Counting(ours.method, ours.network)
    assert torch.equal(Square(steps=50)(victim, wrong, 0.1).image, wrong.image)
    assert victim.asked == len(wrong)
    # So large an ε that the stripes are enough for some: their search has ended with them.
    attacked = Square(steps=50)(victim, data, 0.5, seeds=torch.arange(6))
    assert bool((harm(victim, attacked) > 0).all())
    assert victim.asked < len(wrong) + 6 * 20


class Steps(nn.Module):
    """Scores in whole steps: their gradient is 0 everywhere."""

    def __init__(self, network: nn.Module, height: float) -> None:
        super().__init__()
        self.network, self.height = network, height

    def forward(self, image: Tensor) -> Tensor:
        return (self.network(image) / self.height).round() * self.height


def test_finds_what_masked_gradients_hide() -> None:
    bare, data = classes(16)
    masked = ScoreVictim(bare.method, Steps(bare.network, 0.02), "margin")
    with torch.no_grad():
        data = dataclasses.replace(data, label=masked.network(data.image).argmax(1))

    def right(victim: ScoreVictim, attack: str, steps: int) -> int:
        attacked = make_attack(attack, steps=steps)(victim, data, 0.3, seeds=torch.arange(16))
        return int((harm(victim, attacked) <= 0).sum())

    assert right(bare, "apgd", 40) == 0
    assert right(masked, "pgd", 40) == right(masked, "apgd", 40) == 16
    assert right(masked, "square", 200) == 0


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_answers_that_are_no_numbers_are_no_success(poison: float) -> None:
    ours, data = classes()
    network = ours.network
    victim = ScoreVictim(ours.method, network, scores=lambda b: network(b.image) * poison)
    attacked = Square(steps=5, restarts=2)(victim, data, 0.05)
    assert bool(attacked.image.isfinite().all())
    if math.isnan(poison):
        assert torch.equal(attacked.image, data.image)


def test_starts_where_it_is_told() -> None:
    victim, data = classes()
    start = (data.image + 0.05).clamp(0, 1)
    attacked = Square(steps=1, step_size=1e-9)(victim, data, 0.05, start=start)
    near = (attacked.image - start).abs().flatten(1).amax(1) < 1e-6
    clean = (attacked.image == data.image).flatten(1).all(1)
    assert bool((near | clean).all())
    assert bool(near.any())


@given(spatial=st.lists(st.integers(1, 70), min_size=1, max_size=3), share=st.floats(1e-3, 0.8))
def test_boxes_cover_their_share(spatial: list[int], share: float) -> None:
    sides = _sides(spatial, share)
    assert all(1 <= side <= size for side, size in zip(sides, spatial, strict=True))
    cut = [side == size for side, size in zip(sides, spatial, strict=True)]
    assert len({side for side, whole in zip(sides, cut, strict=True) if not whole}) <= 1
    # Each side is rounded to a whole number of pixels, and at least one.
    low = math.prod(side - 0.5 if side > 1 else 0 for side in sides)
    assert low <= share * math.prod(spatial) <= math.prod(side + 0.5 for side in sides)


def test_boxes_shrink_by_halves() -> None:
    shares = [_share(step / 10_000) for step in range(10_000)]
    assert shares[0] == shares[10] == 0.8
    assert shares[11] == 0.4
    assert shares[-1] == 0.8 / 512
    assert shares == sorted(shares, reverse=True)


def test_start_is_stripes_on_the_surface() -> None:
    clean = torch.full((2, 3, 5, 6, 4), 0.5)
    ball = Ball(clean, torch.full((2, 1, 1, 1, 1), 0.1), "linf")
    change = Square(steps=1).start(ball, Draws(clean, torch.tensor([1, 2]))) - clean
    torch.testing.assert_close(change.abs(), torch.full_like(change, 0.1), atol=1e-6, rtol=0)
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change))
    assert not torch.equal(change[0], change[1])


def test_trains_nothing() -> None:
    assert "square" not in training_attacks()
    with pytest.raises(UserError, match=r"'square', which searches without gradients.*apgd"):
        from_config({"regime": "all", "attack": "square", "epsilon": 0.1})


def test_other_norms_are_refused() -> None:
    with pytest.raises(UserError, match="norm 'l2' is not possible"):
        make_attack("square", norm="l2")


def test_training_victims_are_searched_by_their_scores() -> None:
    ours, data = classes()
    victim = TrainingVictim(ours.method, ours.network, Progress(0, 1))
    first = Square(steps=20)(victim, data, 0.03, seeds=torch.arange(6))
    second = Square(steps=20)(ours, data, 0.03, seeds=torch.arange(6))
    assert torch.equal(first.image, second.image)
