"""The attack engine: bounds, equality with torchattacks, and signs of an attack that works."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks import ScoreVictim, TrainingVictim, make_attack
from trustsweep.trainables.attacks.apgd import APGD
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.attacks.pgd import PGD, SegPGD
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress
from trustsweep.trainables.registry import ATTACKS
from trustsweep.trainables.unet import ClassicalUNet

torch.set_num_threads(1)
NOW = Progress(3, 6)
every = pytest.mark.parametrize("name", ATTACKS)


class Toy(nn.Module):
    """A small smooth network with one logit per pixel; batch norm and dropout to be kept still."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        self.body = nn.Sequential(
            conv(1, 4, 3, padding=1), norm(4), nn.Tanh(), nn.Dropout(0.5), conv(4, 1, 3, padding=1)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


class ToyVictim:
    """Binary cross-entropy of the toy's logits."""

    def __init__(self, network: nn.Module, wrap: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.network = network
        self.wrap = wrap
        self.images: list[Tensor] = []

    def loss(self, batch: Batch) -> Tensor:
        return self.pixels(batch)[0].flatten(1).mean(1)

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = self.loss(batch)
        return loss, loss.detach()

    def pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.mask is not None
        self.images.append(batch.image.detach())
        logit = self.wrap(self.network(batch.image))
        loss = F.binary_cross_entropy_with_logits(logit, batch.mask, reduction="none")
        return loss, (logit > 0) == (batch.mask > 0.5)


def toy(dims: int = 2) -> Toy:
    torch.manual_seed(0)
    return Toy(dims)


def batch(*spatial: int, size: int = 4, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, 1, *(spatial or (8, 8)))
    image = torch.rand(shape, generator=generator)
    mask = (torch.rand(shape, generator=generator) > 0.6).float()
    return Batch(sample_id=tuple(map(str, range(size))), image=image, mask=mask)


def distance(attacked: Batch, clean: Batch) -> Tensor:
    return (attacked.image - clean.image).abs().flatten(1).amax(1)


# Bounds


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(ATTACKS)),
    epsilon=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    steps=st.integers(1, 4),
    step_size=st.none() | st.floats(1e-4, 1),
    restarts=st.integers(1, 2),
    seeded=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_stays_in_the_ball_and_in_range(
    name: str,
    epsilon: list[float],
    steps: int,
    step_size: float | None,
    restarts: int,
    seeded: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    step_size = step_size if ATTACKS[name].iterative else None
    attack = make_attack(name, steps=steps, step_size=step_size, restarts=restarts)
    clean, radius = batch(seed=seed), torch.tensor(epsilon)
    seeds = torch.arange(4) if seeded else None
    attacked = attack(ToyVictim(Toy()), clean, radius, seeds=seeds)
    assert bool((distance(attacked, clean) <= radius + 1e-6).all())
    assert attacked.image.min() >= 0
    assert attacked.image.max() <= 1
    for row in torch.nonzero(radius == 0).flatten().tolist():
        assert torch.equal(attacked.image[row], clean.image[row])


@every
def test_moves_every_chosen_image_and_nothing_else(name: str) -> None:
    clean = batch(size=5)
    kept = clean.image.clone()
    victim = ToyVictim(toy())
    attacked = make_attack(name, steps=2)(victim, clean, 0.05, rows=[3, 1])
    assert (distance(attacked, clean) > 0.02).tolist() == [False, True, False, True, False]
    assert torch.equal(attacked.image[[0, 2, 4]], kept[[0, 2, 4]])
    assert torch.equal(clean.image, kept)
    assert all(len(image) == 2 for image in victim.images)


@every
def test_radius_is_per_sample(name: str) -> None:
    clean, radius = batch(), torch.tensor([0.01, 0.0, 0.2, 0.05])
    attack = make_attack(name, steps=3)
    together = attack(ToyVictim(toy()), clean, radius, seeds=torch.arange(4))
    for row in range(4):
        alone = attack(
            ToyVictim(toy()), clean.select([row]), float(radius[row]), seeds=torch.tensor([row])
        )
        torch.testing.assert_close(together.image[[row]], alone.image, atol=1e-6, rtol=0)


def test_nothing_to_do_is_no_work() -> None:
    clean, victim = batch(), ToyVictim(toy())
    assert make_attack("pgd")(victim, clean, 0.0) is clean
    assert make_attack("pgd")(victim, clean, 0.1, rows=[]) is clean
    assert victim.images == []


@every
def test_three_dimensions(name: str) -> None:
    clean, victim = batch(6, 5, 7), ToyVictim(toy(dims=3))
    attacked = make_attack(name, steps=3)(victim, clean, 0.03)
    assert bool((distance(attacked, clean) <= 0.03 + 1e-6).all())
    with frozen(victim.network):
        assert bool((victim.loss(attacked) > victim.loss(clean)).all())


@every
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_losses_that_are_no_numbers_stay_in_the_ball(name: str, poison: float) -> None:
    clean = batch()
    victim = ToyVictim(toy(), lambda logit: logit * poison)
    attacked = make_attack(name, steps=2, restarts=2)(victim, clean, 0.03)
    assert bool(attacked.image.isfinite().all())
    assert bool((distance(attacked, clean) <= 0.03 + 1e-6).all())


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, math.nan])
def test_impossible_radius_is_refused(epsilon: float) -> None:
    with pytest.raises(UserError, match="ε lies in"):
        make_attack("pgd")(ToyVictim(toy()), batch(), epsilon)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("pgdd", {}, "did you mean 'pgd'"),
        ("pgd", {"steps": 0}, "start at 1"),
        ("pgd", {"restarts": 0}, "start at 1"),
        ("pgd", {"step_size": 0.0}, "above 0"),
        ("fgsm", {"step_size": 0.1}, "step by ε"),
    ],
)
def test_impossible_attacks_are_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_attack(name, **parameters)


@pytest.mark.parametrize(
    ("name", "gradients"), [("fgsm", 1), ("r-fgsm", 3), ("pgd", 15), ("segpgd", 15), ("apgd", 18)]
)
def test_gradients_are_counted(name: str, gradients: int) -> None:
    attack = make_attack(name, steps=5, restarts=3)
    victim = ToyVictim(toy())
    calls: list[Tensor] = []
    victim.network.register_full_backward_hook(lambda *_: calls.append(torch.empty(0)))
    attack(victim, batch(), 0.05)
    assert attack.gradients == gradients == len(calls)


# Left as found


def test_modes_flags_and_gradients_are_left_as_found() -> None:
    network = toy().train()
    network.body[1].eval()  # a batch norm frozen on purpose
    network.body[0].weight.requires_grad_(False)
    network(batch().image).sum().backward()
    modes = [m.training for m in network.modules()]
    flags = [p.requires_grad for p in network.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    state = {k: v.clone() for k, v in network.state_dict().items()}
    make_attack("pgd", steps=2, restarts=2)(ToyVictim(network), batch(), 0.1)
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == flags
    for p, g in zip(network.parameters(), grads, strict=True):
        assert (p.grad is None) if g is None else torch.equal(p.grad, g)  # type: ignore[arg-type]
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_modes_come_back_after_an_error() -> None:
    network = toy().train()

    class Broken(ToyVictim):
        def loss(self, batch: Batch) -> Tensor:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        make_attack("fgsm")(Broken(network), batch(), 0.1)
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())


def test_network_is_frozen_in_evaluation_mode_during_the_attack() -> None:
    network = toy().train()
    seen: list[bool] = []

    def note(module: nn.Module, *_: object) -> None:
        seen.extend(m.training for m in module.modules())
        seen.extend(p.requires_grad for p in module.parameters())

    network.register_forward_hook(note)
    make_attack("pgd", steps=2)(ToyVictim(network), batch(), 0.1)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode: Callable) -> None:
    victim, attack = ToyVictim(toy()), make_attack("pgd", steps=2, restarts=2)
    expected = attack(victim, batch(), 0.1, seeds=torch.arange(4))
    with mode():
        found = attack(victim, batch(), 0.1, seeds=torch.arange(4))
        assert not torch.is_grad_enabled()
    assert torch.equal(found.image, expected.image)
    assert not found.image.requires_grad


def test_training_under_the_same_autocast_still_learns() -> None:
    network, data = toy().train(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        attacked = make_attack("pgd", steps=2, restarts=2)(ToyVictim(network), data, 0.05)
        loss = ToyVictim(network).loss(attacked).mean()
    loss.backward()
    assert bool((distance(attacked, data) <= 0.05 + 1e-6).all())
    assert all(p.grad is not None for p in network.parameters())


def test_distributed_training_goes_on_after_an_attack(tmp_path: pytest.TempPathFactory) -> None:
    store = torch.distributed.FileStore(f"{tmp_path}/store", 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = toy().train()
        wrapper = DistributedDataParallel(network)
        for _ in range(2):
            attacked = make_attack("pgd", steps=2)(ToyVictim(network), batch(), 0.05)
            network.zero_grad()
            ToyVictim(wrapper).loss(attacked).mean().backward()
            assert all(p.grad is not None for p in network.parameters())
    finally:
        torch.distributed.destroy_process_group()


# Equality with torchattacks


class TwoLogits(nn.Module):
    """One logit z as the two logits [0, z], for the dense cross-entropy of torchattacks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logit = self.network(image)
        return torch.cat([torch.zeros_like(logit), logit], 1)


@pytest.mark.parametrize("epsilon", [0.01, 0.03, 0.3])
@pytest.mark.parametrize(
    ("peer", "parameters", "ours"),
    [
        ("FGSM", lambda e: {}, lambda e: make_attack("fgsm")),
        ("RFGSM", lambda e: {"alpha": e / 2, "steps": 1}, lambda e: make_attack("r-fgsm")),
        (
            "PGD",
            lambda e: {"alpha": e / 4, "steps": 7},
            lambda e: make_attack("pgd", steps=7, step_size=e / 4),
        ),
        # 2.5 ε / 4, the default step of ours.
        ("PGD", lambda e: {"alpha": 0.625 * e, "steps": 4}, lambda e: make_attack("pgd", steps=4)),
        (
            "PGD",
            lambda e: {"alpha": e / 4, "steps": 5, "random_start": False},
            lambda e: PGD(steps=5, step_size=e / 4, random_start=False),
        ),
    ],
    ids=["fgsm", "r-fgsm", "pgd-7", "pgd-4-default-step", "pgd-5-from-clean"],
)
def test_equals_torchattacks(
    peer: str, parameters: Callable, ours: Callable, epsilon: float
) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    network, data = toy().eval(), batch(16, 16)
    assert data.mask is not None
    theirs = getattr(torchattacks, peer)(TwoLogits(network), eps=epsilon, **parameters(epsilon))
    torch.manual_seed(5)
    expected = theirs(data.image, data.mask[:, 0].long())
    torch.manual_seed(5)
    found = ours(epsilon)(ToyVictim(network), data, epsilon).image
    # Bit for bit where this was written; other processors may round a sum otherwise.
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


class Classes(nn.Module):
    """Four scores of an image."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 64, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


class ClassVictim(ScoreVictim):
    """Of a bare network with a score for each class."""

    def __init__(self, network: nn.Module, loss: str = "cross-entropy") -> None:
        linear = LinearClasses({}, MANIFEST)
        super().__init__(linear, network, loss, lambda batch: network(batch.image))


def pictures(size: int = 6) -> Batch:
    images = batch(size=size).image
    label = torch.arange(size) % 4
    return Batch(sample_id=tuple(map(str, range(size))), image=images, label=label)


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize(("loss", "theirs"), [("cross-entropy", "ce"), ("dlr", "dlr")])
def test_apgd_equals_torchattacks(
    loss: str, theirs: str, norm: str, epsilon: float, steps: int
) -> None:
    """Of each sample the best loss found. From some 50 steps on, rounding flips a sign."""
    torchattacks = pytest.importorskip("torchattacks")
    torch.manual_seed(3)
    network, data = Classes().eval(), pictures()
    peer = torchattacks.APGD(
        network, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, steps=steps, loss=theirs
    )
    torch.manual_seed(5)
    highest, images = peer.perturb(data.image, data.label, best_loss=True)
    torch.manual_seed(5)
    victim = ClassVictim(network, loss)
    ours = Costliest(steps=steps, norm=norm)(victim, data, epsilon)
    with torch.no_grad():
        torch.testing.assert_close(victim.loss(ours), highest, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.image, images, atol=1e-5, rtol=0)


class Costliest(APGD):
    """APGD that returns the image of the highest loss."""

    def _look(self, victim: ScoreVictim, batch: Batch, image: Tensor) -> tuple[Tensor, ...]:
        gradient, loss, _ = super()._look(victim, batch, image)
        return gradient, loss, loss


# Seeds


@every
def test_seeds_decide_a_start_whatever_the_batch(name: str) -> None:
    clean, seeds = batch(), torch.tensor([11, 7, 11, 3])
    attack = make_attack(name, steps=2)
    torch.manual_seed(0)
    first = attack(ToyVictim(toy()), clean, 0.05, seeds=seeds)
    torch.manual_seed(1)
    order = [2, 3, 0]
    second = attack(ToyVictim(toy()), clean.select(order), 0.05, seeds=seeds[order])
    torch.testing.assert_close(first.image[order], second.image, atol=1e-6, rtol=0)
    rows = attack(ToyVictim(toy()), clean, 0.05, rows=[1], seeds=seeds)
    torch.testing.assert_close(rows.image[1], first.image[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["r-fgsm", "pgd", "segpgd"])
def test_other_seeds_give_other_starts(name: str) -> None:
    attack = make_attack(name, steps=1, **({} if name == "r-fgsm" else {"step_size": 1e-3}))
    clean = batch()
    first = attack(ToyVictim(toy()), clean, 0.05, seeds=torch.arange(4))
    second = attack(ToyVictim(toy()), clean, 0.05, seeds=torch.arange(4) + 4)
    assert bool((distance(first, second) > 0.01).all())


# Does it attack?


def trained() -> tuple[ClassicalUNet, nn.Module, Batch]:
    """A U-Net that finds faint squares in noise, and images that it did not see."""
    manifest = Manifest(
        name="toy",
        tasks=(TaskName.SEGMENTATION,),
        image_shape=(1, 16, 16),
        image_scale=1.0,
        classes=("background", "lesion"),
        mean=(0.4,),
        std=(0.15,),
        split_counts={},
        columns={},
        fingerprint="0",
    )
    model = ClassicalUNet({"width": 4, "dice_weight": 0.5, "ace_weight": 0.0}, manifest)
    torch.manual_seed(0)
    network = model.network()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(60):
        optimiser.zero_grad()
        model.loss(network, squares(16, step), NOW).total.backward()
        optimiser.step()
    return model, network.eval(), squares(16, 1000)


def squares(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 + 0.05 * torch.randn((size, 1, 16, 16), generator=generator)
    mask = torch.zeros_like(image)
    corners = torch.randint(0, 10, (size, 2), generator=generator).tolist()
    for row, (top, left) in enumerate(corners):
        mask[row, 0, top : top + 6, left : left + 6] = 1
    image = (image + 0.2 * mask).clamp(0, 1)
    return Batch(sample_id=tuple(map(str, range(size))), image=image, mask=mask)


@pytest.fixture(scope="module")
def prey() -> tuple[ClassicalUNet, nn.Module, Batch]:
    return trained()


def dice(model: Method, network: nn.Module, data: Batch) -> float:
    assert data.mask is not None
    with torch.no_grad():
        found = (model.predict(network, data).probability > 0.5).float()
    return float(2 * (found * data.mask).sum() / (found + data.mask).sum())


@pytest.mark.parametrize("kind", [ScoreVictim, lambda m, n: TrainingVictim(m, n, NOW)])
def test_more_effort_does_more_harm(kind: Callable, prey: tuple) -> None:
    model, network, data = prey
    victim, seeds = kind(model, network), torch.arange(len(data))

    def harm(name: str, steps: int = 1, restarts: int = 1) -> Tensor:
        attack = make_attack(name, steps=steps, restarts=restarts)
        with torch.no_grad():
            return victim.loss(attack(victim, data, 0.05, seeds=seeds))

    with torch.no_grad():
        clean = victim.loss(data)
    fgsm, pgd, restarted = harm("fgsm"), harm("pgd", 10), harm("pgd", 10, 3)
    assert bool((fgsm > clean).all())
    assert pgd.mean() > fgsm.mean()
    # The first restart is the single run: the costliest of three is never cheaper, per image.
    assert bool((restarted >= pgd).all())


def test_loss_grows_along_the_attack(prey: tuple) -> None:
    model, network, data = prey
    victim = ScoreVictim(model, network)
    along = []
    for steps in range(1, 9):
        attack = PGD(steps=steps, step_size=0.005, random_start=False)
        with torch.no_grad():
            along.append(victim.loss(attack(victim, data, 0.05)).mean().item())
    assert along == sorted(along)


def test_large_radius_destroys_and_noise_does_not(prey: tuple) -> None:
    """Signs of masked gradients (Athalye et al. 2018): neither may be missing."""
    model, network, data = prey
    victim = ScoreVictim(model, network)
    assert dice(model, network, data) > 0.85
    drops = [
        dice(model, network, make_attack("pgd", steps=20)(victim, data, epsilon))
        for epsilon in (0.02, 0.05, 0.1, 0.3)
    ]
    assert drops == sorted(drops, reverse=True)
    assert drops[-1] < 0.02
    attacked = make_attack("pgd", steps=20)(victim, data, 0.05)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(20):
            noise = (torch.rand_like(data.image) - 0.5).sign() * 0.05
            shaken = data.with_image((data.image + noise).clamp(0, 1))
            assert bool((victim.loss(shaken) < victim.loss(attacked)).all())


def test_restarts_never_leave_less_than_the_clean_loss() -> None:
    """Where the loss falls in every direction but the way back, the clean image is kept."""

    class Peak(ToyVictim):
        def loss(self, batch: Batch) -> Tensor:
            return -(batch.image - centre[: len(batch)]).abs().flatten(1).sum(1)

    data = batch()
    centre = data.image.clone()
    attacked = make_attack("pgd", steps=1, step_size=1e-3, restarts=3)(Peak(toy()), data, 0.1)
    assert torch.equal(attacked.image, centre)


def test_segpgd_weighs_pixels_as_written() -> None:
    victim, data = ToyVictim(toy().eval()), batch()
    attack = SegPGD(steps=4)
    loss, right = victim.pixels(data)
    for step, share in enumerate([0, 1 / 8, 2 / 8, 3 / 8]):
        expected = ((1 - share) * loss * right + share * loss * ~right).flatten(1).mean(1)
        torch.testing.assert_close(attack.objective(victim, data, step), expected)


# Victims


def test_score_victim_is_the_cross_entropy_of_the_logits(prey: tuple) -> None:
    model, network, data = prey
    victim = ScoreVictim(model, network)
    with torch.no_grad():
        logit = network(data.image)
        expected = F.binary_cross_entropy_with_logits(logit, data.mask, reduction="none")
        torch.testing.assert_close(victim.loss(data), expected.flatten(1).mean(1))
        loss, right = victim.pixels(data)
    assert loss.shape == right.shape == (16, 256)
    assert torch.equal(right, ((logit > 0) == (data.mask > 0.5)).flatten(1))


def test_training_victim_is_the_trainables_own_loss(prey: tuple) -> None:
    model, network, data = prey
    expected = model.loss(network, data, NOW).per_sample
    assert torch.equal(TrainingVictim(model, network, NOW).loss(data), expected)


class Linear(Method):
    """A classifier with a given number of outputs, for victims of the other tasks."""

    uncertainties = ("entropy",)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, self.config["outputs"]))

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        raise NotImplementedError

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        out = network(batch.image)
        one = TaskName.MULTILABEL in self.tasks or out.shape[1] == 1
        return Prediction(out, {}, exclusive=not one)


MANIFEST = Manifest(
    name="toy",
    tasks=tuple(TaskName),
    image_shape=(1, 8, 8),
    image_scale=1.0,
    classes=("a", "b", "c"),
    mean=(0.5,),
    std=(0.3,),
    split_counts={},
    columns={},
    fingerprint="0",
)


class LinearLabels(Linear):
    tasks = (TaskName.MULTILABEL,)


class LinearClasses(Linear):
    tasks = (TaskName.CLASSIFICATION,)


@pytest.mark.parametrize(
    ("kind", "outputs", "label", "oracle"),
    [
        (LinearClasses, 3, torch.tensor([0, 1, 2, 1]), F.cross_entropy),
        (
            LinearClasses,
            1,
            torch.tensor([0, 1, 1, 0]),
            lambda z, y, reduction: F.binary_cross_entropy_with_logits(z[:, 0], y.float()),
        ),
        (
            LinearLabels,
            2,
            torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]),
            F.binary_cross_entropy_with_logits,
        ),
    ],
    ids=["classes", "one-output", "labels"],
)
def test_score_victim_of_classifiers(
    kind: type[Linear], outputs: int, label: Tensor, oracle: Callable
) -> None:
    images = batch().image
    data = Batch(sample_id=tuple("abcd"), image=images, label=label)
    model = kind({"outputs": outputs}, MANIFEST)
    network = model.network()
    victim = ScoreVictim(model, network)
    expected = oracle(network(images), label, reduction="mean")
    torch.testing.assert_close(victim.loss(data).mean(), expected)
    attacked = make_attack("segpgd", steps=3)(victim, data, 0.1)
    assert bool((victim.loss(attacked) > victim.loss(data)).any())
