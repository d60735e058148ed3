"""torchattacks' attacks behind our interface: the same results, our rules."""

from __future__ import annotations

import dataclasses
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks import ScoreVictim
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.attacks.zoo import CW, FAB, DeepFool, available
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress

torch.set_num_threads(1)
ZOO = [
    pytest.param(FAB, {"norm": "linf"}, 0.1, id="fab-linf"),
    pytest.param(FAB, {"norm": "l2"}, 0.5, id="fab-l2"),
    pytest.param(CW, {"weight": 5.0, "rate": 0.05}, 0.5, id="cw"),
    pytest.param(DeepFool, {}, 0.5, id="deepfool"),
]
every = pytest.mark.parametrize(("kind", "parameters", "epsilon"), ZOO)


class Plain(Method):
    """A classifier whose network answers in scores."""

    tasks = (TaskName.CLASSIFICATION,)
    uncertainties = ("entropy",)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(384, self.config["outputs"]),
        )

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        assert batch.label is not None
        each = F.cross_entropy(network(batch.image), batch.label, reduction="none")
        return Loss(each.mean(), each)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        return Prediction(network(batch.image), {})


class Labels(Plain):
    tasks = (TaskName.MULTILABEL,)


class Pixels(Plain):
    tasks = (TaskName.SEGMENTATION,)


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


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("torchattacks")


def setting(size: int = 5, outputs: int = 4) -> tuple[ScoreVictim, Batch]:
    """A victim in training mode, and images that it gets right but for the last."""
    model = Plain({"outputs": outputs}, MANIFEST)
    network = model.network()
    torch.manual_seed(1)
    image = 0.05 + 0.9 * torch.rand((size, 1, 8, 8))
    with torch.no_grad(), frozen(network):
        scores = network(image)
    label = scores.argmax(1) if outputs > 1 else (scores[:, 0] > 0).long()
    label[-1] = (label[-1] + 1) % max(outputs, 2)
    names = tuple(map(str, range(size)))
    return ScoreVictim(model, network), Batch(sample_id=names, image=image, label=label)


def harm(victim: ScoreVictim, batch: Batch) -> Tensor:
    with torch.no_grad(), frozen(victim.network):
        return victim.look(batch)[1]


def distance(attacked: Batch, clean: Batch, norm: str) -> Tensor:
    change = (attacked.image - clean.image).flatten(1)
    return change.abs().amax(1) if norm == "linf" else change.norm(dim=1)


@settings(max_examples=25, deadline=None)
@given(
    which=st.sampled_from(ZOO),
    epsilon=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    steps=st.integers(1, 4),
    restarts=st.integers(1, 2),
    outputs=st.sampled_from([1, 2, 4]),
    seeded=st.booleans(),
)
def test_stays_in_the_ball_and_does_harm_or_nothing(
    which: object, epsilon: list[float], steps: int, restarts: int, outputs: int, seeded: bool
) -> None:
    kind, parameters, _ = which.values  # type: ignore[attr-defined]
    victim, clean = setting(outputs=outputs)
    radius = torch.tensor(epsilon)
    attack = kind(steps=steps, restarts=restarts, **parameters)
    seeds = torch.arange(5) if seeded else None
    attacked = attack(victim, clean, radius, seeds=seeds)
    assert bool((distance(attacked, clean, attack.norm) <= radius + 1e-6).all())
    assert attacked.image.min() >= 0
    assert attacked.image.max() <= 1
    moved = (attacked.image != clean.image).flatten(1).any(1)
    assert bool((harm(victim, attacked) > harm(victim, clean))[moved].all())
    assert not moved[-1]  # wrong from the start


@every
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_finds_what_torchattacks_finds(
    kind: type, parameters: dict, epsilon: float, outputs: int
) -> None:
    import torchattacks

    victim, data = setting(12, outputs)
    victim.network.eval()
    assert data.label is not None

    class Columns(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            z = victim.network(image)
            # CW misreads logits below 0.
            return (10 if kind is CW else 0) + (
                torch.cat([torch.zeros_like(z), z], 1) if outputs == 1 else z
            )

    steps = 20 if kind is FAB else 40
    theirs = {
        FAB: lambda m: torchattacks.FAB(
            m, norm={"linf": "Linf"}.get(parameters.get("norm"), "L2"), eps=epsilon, steps=steps
        ),
        CW: lambda m: torchattacks.CW(
            m, c=parameters["weight"], lr=parameters["rate"], steps=steps
        ),
        DeepFool: lambda m: torchattacks.DeepFool(m, steps=steps),
    }[kind](Columns())
    theirs.set_device("cpu")
    ours = kind(steps=steps, **parameters)
    found = ours(victim, data, epsilon, seeds=torch.arange(12))
    inside = 0
    for row in range(11):
        one = data.select([row])
        expected = one.with_image(theirs(one.image, one.label).detach())
        if distance(expected, one, ours.norm) > epsilon:
            continue
        if harm(victim, expected) > harm(victim, one):
            inside += 1
            torch.testing.assert_close(found.image[[row]], expected.image, atol=1e-5, rtol=0)
    assert inside >= 4


@every
def test_fools(kind: type, parameters: dict, epsilon: float) -> None:
    victim, data = setting(12)
    attacked = kind(steps=50, **parameters)(victim, data, 2 * epsilon if epsilon > 0.1 else 0.3)
    assert (harm(victim, attacked) > 0).sum() >= 10


@every
@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_a_constant_beside_the_scores_changes_nothing(
    kind: type, parameters: dict, epsilon: float, shift: float
) -> None:
    victim, data = setting(4)
    network = victim.network
    other = ScoreVictim(victim.method, network, scores=lambda b: network(b.image) + shift)
    attack, seeds = kind(steps=10, **parameters), torch.arange(4)
    found = attack(victim, data, epsilon, seeds=seeds)
    torch.testing.assert_close(
        attack(other, data, epsilon, seeds=seeds).image, found.image, atol=1e-3, rtol=0
    )
    assert not torch.equal(found.image, data.image)


@every
def test_modes_and_generators_are_left_as_found(
    kind: type, parameters: dict, epsilon: float
) -> None:
    victim, data = setting()
    victim.network.train()
    victim.network[1].eval()  # a batch norm frozen on purpose
    modes = [module.training for module in victim.network.modules()]
    state = {key: value.clone() for key, value in victim.network.state_dict().items()}
    generator = torch.get_rng_state()
    with torch.inference_mode():
        kind(steps=3, restarts=2, **parameters)(victim, data, epsilon, seeds=torch.arange(5))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in victim.network.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in victim.network.parameters())
    assert all(torch.equal(v, state[k]) for k, v in victim.network.state_dict().items())


@every
def test_own_seeds_alone_decide(kind: type, parameters: dict, epsilon: float) -> None:
    victim, data = setting(6)
    attack, seeds = kind(steps=3, restarts=3, **parameters), torch.tensor([4, 9, 4, 2, 7, 1])
    together = attack(victim, data, epsilon, seeds=seeds)
    order = [3, 1]
    torch.manual_seed(0)
    apart = attack(victim, data.select(order), epsilon, seeds=seeds[order])
    torch.testing.assert_close(together.image[order], apart.image, atol=1e-6, rtol=0)


@every
@pytest.mark.parametrize("poison", [math.nan, math.inf, 0.0])
def test_answers_that_are_no_numbers_are_no_success(
    kind: type, parameters: dict, epsilon: float, poison: float
) -> None:
    ours, data = setting()
    network = ours.network

    def scores(batch: Batch) -> Tensor:
        # Poisoned away from the image, where an attack arrives and the clean answer is not.
        away = (batch.image - clean[: len(batch)]).abs().flatten(1).amax(1, keepdim=True) > 1e-3
        answer = network(batch.image)
        return torch.where(away, answer * poison, answer)

    victim = ScoreVictim(ours.method, network, scores=scores)
    data = data.select([0])
    clean = data.image
    attack = kind(steps=3, restarts=2, **parameters)
    attacked = attack(victim, data, epsilon)
    assert bool(attacked.image.isfinite().all())
    assert bool((distance(attacked, data, attack.norm) <= epsilon + 1e-6).all())
    if math.isnan(poison):
        assert torch.equal(attacked.image, data.image)


def test_answers_that_do_not_repeat_themselves_are_attacked_one_by_one() -> None:
    """FAB leaves out of a batch what is wrong already, and does not say which."""
    ours, data = setting(8)
    sizes: list[int] = []

    def scores(batch: Batch) -> Tensor:
        sizes.append(len(batch))
        answer = ours.network(batch.image)
        # FAB's first question: the first sample, right a moment ago, is now wrong.
        return torch.cat([-answer[:1], answer[1:]]) if len(sizes) == 2 else answer

    victim = ScoreVictim(ours.method, ours.network, scores=scores)
    attack, seeds = FAB(steps=5), torch.arange(8)
    attacked = attack(victim, data, 0.3, seeds=seeds)
    assert sizes[:3] == [8, 7, 1]
    torch.testing.assert_close(
        attacked.image, attack(ours, data, 0.3, seeds=seeds).image, atol=1e-5, rtol=0
    )
    assert (harm(ours, attacked) > harm(ours, data)).sum() >= 4


def test_answers_that_repeat_themselves_are_attacked_together() -> None:
    ours, data = setting(8)
    sizes: list[int] = []

    def scores(batch: Batch) -> Tensor:
        sizes.append(len(batch))
        return ours.network(batch.image)

    victim = ScoreVictim(ours.method, ours.network, scores=scores)
    radius, seeds = torch.linspace(0.05, 0.4, 8), torch.arange(8)
    together = FAB(steps=5)(victim, data, radius, seeds=seeds)
    assert set(sizes) == {8, 7}  # the last is wrong from the start
    for row in range(8):
        alone = FAB(steps=5)(ours, data, radius, rows=[row], seeds=seeds)
        torch.testing.assert_close(together.image[row], alone.image[row], atol=1e-5, rtol=0)


def test_averages_over_draws() -> None:
    ours, data = setting()
    network = ours.network
    calls: list[int] = []

    def scores(batch: Batch) -> Tensor:
        calls.append(len(batch))
        return network(batch.image) + 0.1 * torch.randn(len(batch), 4)

    victim = ScoreVictim(ours.method, network, scores=scores)
    DeepFool(steps=1, draws=4)(victim, data.select([0]), 0.5, seeds=torch.arange(1))
    # The clean image, one step and the result, four times each.
    assert len(calls) == 12


@every
@pytest.mark.parametrize("task", [Labels, Pixels])
def test_only_classification(kind: type, parameters: dict, epsilon: float, task: type) -> None:
    victim, data = setting()
    other = ScoreVictim(task({"outputs": 4}, MANIFEST), victim.network)
    with pytest.raises(UserError, match="is for classification"):
        kind(steps=1, **parameters)(other, data, epsilon)
    with pytest.raises(ValueError, match="begins at the image"):
        kind(steps=1, **parameters)(victim, data, epsilon, start=data.image)


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="norm 'linf' is not possible"):
        CW(steps=1, norm="linf")
    with pytest.raises(UserError, match="chooses its own steps"):
        DeepFool(steps=1, step_size=0.1)
    with pytest.raises(UserError, match="start at 1"):
        FAB(steps=0)


def test_without_torchattacks_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.setattr(sys, "path", [])
    for name in [n for n in sys.modules if n.split(".")[0] == "torchattacks"]:
        monkeypatch.delitem(sys.modules, name)
    assert not available()
    with pytest.raises(UserError, match=r"pip install --no-deps torchattacks==3\.5\.1"):
        FAB(steps=1)


def test_channels_last_images() -> None:
    victim, data = setting()
    wide = dataclasses.replace(data, image=data.image.expand(-1, 3, -1, -1))
    victim.network[0] = nn.Conv2d(3, 6, 3, padding=1)
    last = wide.with_image(wide.image.contiguous(memory_format=torch.channels_last))
    seeds = torch.arange(5)
    for attack in (FAB(steps=2, restarts=2), CW(steps=2), DeepFool(steps=2)):
        plain, other = (attack(victim, batch, 0.3, seeds=seeds).image for batch in (wide, last))
        torch.testing.assert_close(plain, other, atol=1e-5, rtol=0)
