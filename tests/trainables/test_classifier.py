"""The classifier's own promises; what every method promises is in test_method_contract.py."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks import ScoreVictim, make_attack
from trustsweep.trainables.attacks.ensemble import make_ensemble
from trustsweep.trainables.classifier import Classifier
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.evaluation import EvaluationPlan, evaluate
from trustsweep.trainables.networks import load_encoder
from trustsweep.trainables.regimes import from_config

torch.set_num_threads(1)
CONFIG = {
    "width": 8, "depth": 3, "convolutions": 1, "full_size": 0, "dropout": 0.0,
    "label_smoothing": 0.0,
}  # fmt: skip
NOW = Progress(0, 6)


def manifest(classes: int = 2, **changes: object) -> Manifest:
    fields = {
        "name": "toy",
        "tasks": (TaskName.CLASSIFICATION,),
        "image_shape": (1, 28, 28),
        "image_scale": 255.0,
        "classes": tuple(map(str, range(classes))),
        "mean": (0.5,),
        "std": (0.2,),
        "split_counts": {},
        "columns": {},
        "fingerprint": "0",
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def batch(label: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((len(label), 1, 28, 28), generator=generator)
    return Batch(sample_id=tuple(map(str, label)), image=image, label=torch.tensor(label))


class Fixed(nn.Module):
    """A network whose raw output does not depend on the image."""

    def __init__(self, *output: float) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.tensor(output))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output.expand(len(image), -1)


def test_two_classes_share_one_output() -> None:
    model = Classifier(CONFIG, manifest(2))
    assert model.network()(batch([0, 1]).image).shape == (2, 1)
    prediction = model.predict(Fixed(math.log(3)), batch([0, 1]))
    torch.testing.assert_close(prediction.probability, torch.full((2, 1), 0.75))
    torch.testing.assert_close(prediction.uncertainty["least-confidence"], torch.full((2,), 0.25))


def test_more_classes_have_one_each() -> None:
    model = Classifier(CONFIG, manifest(3))
    assert model.network()(batch([0, 1]).image).shape == (2, 3)
    prediction = model.predict(Fixed(math.log(2), 0.0, 0.0), batch([0, 1]))
    torch.testing.assert_close(prediction.probability[0], torch.tensor([0.5, 0.25, 0.25]))
    assert prediction.uncertainty["entropy"][0].item() == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_is_the_same_with_one_output_and_with_two(smoothing: float) -> None:
    model = Classifier({**CONFIG, "label_smoothing": smoothing}, manifest(2))
    data, logit = batch([0, 1, 1]), 0.7
    expected = F.cross_entropy(
        torch.tensor([[0.0, logit]]).expand(3, 2),
        data.label,
        label_smoothing=smoothing,
        reduction="none",
    )
    torch.testing.assert_close(model.loss(Fixed(logit), data, NOW).per_sample, expected)
    three = Classifier({**CONFIG, "label_smoothing": smoothing}, manifest(3))
    loss = three.loss(Fixed(logit, 0.0, 0.0), batch([0]), NOW)
    log_p = torch.tensor([logit, 0.0, 0.0]).log_softmax(0)
    target = torch.tensor([1 - smoothing, 0, 0]) + smoothing / 3
    torch.testing.assert_close(loss.total, -(target * log_p).sum())


# Several labels


def labelled(*rows: tuple[float, ...]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((len(rows), 1, 28, 28), generator=generator)
    return Batch(sample_id=tuple(map(str, range(len(rows)))), image=image, label=torch.tensor(rows))


def of_labels(labels: int = 3, **changes: float) -> Classifier:
    return Classifier({**CONFIG, **changes}, manifest(labels, tasks=(TaskName.MULTILABEL,)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_labels_are_questions_of_their_own_and_unknown_ones_are_not_asked(smoothing: float) -> None:
    model, nan = of_labels(label_smoothing=smoothing), math.nan
    data = labelled((1.0, 0.0, nan), (nan, nan, nan), (0.0, 0.0, 1.0))
    network = Fixed(0.3, -1.0, 2.0)
    loss = model.loss(network, data, NOW)
    softened = torch.nan_to_num(data.label) * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(network(data.image), softened, reduction="none")
    expected = torch.stack([each[0, :2].mean(), torch.tensor(0.0), each[2].mean()])
    torch.testing.assert_close(loss.per_sample, expected)
    (gradient,) = torch.autograd.grad(loss.per_sample[0], network.output)
    assert gradient[2] == 0
    said = model.predict(network, data)
    torch.testing.assert_close(said.probability[0], torch.tensor([0.3, -1.0, 2.0]).sigmoid())
    smaller = torch.minimum(said.probability, 1 - said.probability)
    torch.testing.assert_close(said.uncertainty["least-confidence"], smaller.mean(dim=1))
    entropy = -(smaller * smaller.log() + (1 - smaller) * (1 - smaller).log())
    torch.testing.assert_close(said.uncertainty["entropy"], entropy.mean(dim=1))
    assert (model.task.name, model.network()(data.image).shape) == (TaskName.MULTILABEL, (3, 3))


def test_a_single_label_is_a_question_too() -> None:
    assert of_labels(1).network()(labelled((1.0,)).image).shape == (1, 1)


@pytest.mark.parametrize("factor", [1, 10, 100])
@pytest.mark.parametrize("attack", ["fast", "full"])
def test_labels_are_attacked_however_sure_the_model_is(attack: str, factor: int) -> None:
    torch.manual_seed(0)
    model = of_labels(epochs=1)
    network = model.network().eval()
    data = labelled(*torch.randint(0, 2, (8, 3)).float().tolist())
    data = replace(data, label=(model.scores(network, data).detach() > 0).float())
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= factor
        last.bias *= factor
    worse = make_ensemble(attack, model, network, steps=5)(data, 0.1, torch.arange(8))
    task = model.task

    def right(at: Batch) -> float:
        return float(task.performance(task.decisions(model.scores(network, at), at)).mean())

    assert right(data) == 1
    reached = right(worse)
    assert reached < 0.8
    # What is scaled is decided alike, so the same harm is found.
    if factor > 1:
        with torch.no_grad():
            last.weight /= factor
            last.bias /= factor
        plain = make_ensemble(attack, model, network, steps=5)(data, 0.1, torch.arange(8))
        assert right(plain) == pytest.approx(reached, abs=0.09)


SHAPES = [{}, {"convolutions": 2}, {"convolutions": 2, "full_size": 1}, {"full_size": 3}]


@pytest.mark.parametrize("more", SHAPES, ids=str)
def test_samples_do_not_see_each_other_even_in_training_mode(more: dict) -> None:
    torch.manual_seed(0)
    network = Classifier({**CONFIG, **more}, manifest()).network().train()
    image = batch([0, 1, 0]).image
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]), atol=1e-5, rtol=1e-4)


def test_dropout_is_drawn_in_training_alone() -> None:
    network = Classifier({**CONFIG, "dropout": 0.5}, manifest()).network()
    image = batch([0, 1]).image
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize("more", SHAPES, ids=str)
def test_units_halve_after_those_of_full_size(more: dict) -> None:
    network = Classifier({**CONFIG, **more}, manifest()).network()
    assert isinstance(network, nn.Sequential)
    sides, features = [], network[0](torch.rand(1, 1, 28, 28))
    for unit in network[1:4]:
        features = unit(features)
        sides.append(features.shape[-1])
    expected = {0: [14, 7, 4], 1: [28, 14, 7], 3: [28, 28, 28]}
    assert sides == expected[more.get("full_size", 0)]
    kernels = [
        m for m in network[1].modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3
    ]
    # The shortcut's own of MONAI's unit is 3 x 3 as well where it halves.
    if more.get("convolutions") == 2:
        assert len(kernels) == 2


@pytest.mark.parametrize("more", SHAPES, ids=str)
@pytest.mark.parametrize("side", [1, 7, 28, 65])
def test_images_may_have_any_size(side: int, more: dict) -> None:
    network = Classifier({**CONFIG, **more}, manifest()).network()
    assert bool(network(torch.rand(2, 1, side, side)).isfinite().all())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("width", 0, "'width' must be a whole number"),
        ("depth", 1.5, "'depth' must be a whole number"),
        ("convolutions", 3, "'convolutions' is 3, above 2"),
        ("full_size", 4, "'full_size' is 4, above 3"),
        ("dropout", 1.2, "'dropout' is 1.2, outside"),
        ("label_smoothing", -0.1, "'label_smoothing' is -0.1, outside"),
    ],
)
def test_bad_value_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classifier({**CONFIG, key: value}, manifest())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": (TaskName.SEGMENTATION,)},
            "toy: offers segmentation, and Classifier needs",
        ),
        ({"image_shape": ()}, "toy: no images"),
        ({"classes": 1}, "toy: a single class"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classifier(CONFIG, manifest(**changes))


def test_an_encoder_of_other_classes_lends_all_but_the_last_layer(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    lent = Classifier(CONFIG, manifest(5, mean=(0.1,))).network()
    save_file(lent.state_dict(), file)
    network = Classifier(CONFIG, manifest(3)).network()
    last = {n: p.clone() for n, p in network.named_parameters()}
    load_encoder(network, file)
    theirs = dict(lent.named_parameters())
    for name, mine in network.named_parameters():
        expected = last[name] if name.startswith("7.") else theirs[name]
        assert torch.equal(mine, expected), name
    # Images are standardised by the statistics of the data at hand.
    assert network[0].mean.item() == 0.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 16}, r"'1\..*' is \(16,.*, here \(8,"),
        (None, "holds no weight of this network"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, changes: dict, told: str) -> None:
    file = tmp_path / "weights.safetensors"
    tensors = {"layer1.weight": torch.zeros(3)}
    if changes is not None:
        tensors = Classifier({**CONFIG, **changes}, manifest()).network().state_dict()
    save_file(tensors, file)
    with pytest.raises(UserError, match=told):
        load_encoder(Classifier(CONFIG, manifest()).network(), file)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    network = Classifier(CONFIG, manifest()).network()
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_encoder(network, tmp_path / "absent")
    (tmp_path / "text").write_text("weights")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_encoder(network, tmp_path / "text")


def test_learns_pneumonia_and_withstands_what_it_was_trained_against(real_data: Path) -> None:
    """400 real X-rays, four epochs: clean, and attacked where the model is least certain."""
    stored = np.load(real_data / "medmnist" / "pneumoniamnist.npz")

    def split(name: str, size: int) -> Batch:
        rows = np.random.default_rng(0).permutation(len(stored[f"{name}_images"]))[:size]
        image = torch.from_numpy(stored[f"{name}_images"][rows]).unsqueeze(1) / 255
        label = torch.from_numpy(stored[f"{name}_labels"][rows, 0]).long()
        ids = tuple(f"{name}-{row}" for row in rows)
        return Batch(sample_id=ids, image=image.float(), label=label)

    train, test = split("train", 400), split("test", 200)
    attack = make_attack("pgd", steps=5)
    plan = EvaluationPlan(epsilons=(0.0, 0.02))
    found = {}
    for regime in ("none", "uncertain"):
        torch.manual_seed(0)
        model, network = trained(regime, train)
        victim = ScoreVictim(model, network)
        evaluation = evaluate(
            model,
            network,
            [test.select(range(0, 100)), test.select(range(100, 200))],
            plan,
            corrupt=lambda batch, *_: batch,
            attack=lambda batch, epsilon, _, victim=victim: attack(victim, batch, epsilon),
        )
        found[regime] = evaluation.compute()
        assert found[regime]["clean.auroc"] > 0.8
        assert found[regime]["attacked.auroc"] < found[regime]["clean.auroc"]
    assert found["uncertain"]["auroc_area"] > found["none"]["auroc_area"] + 0.05


def trained(regime_name: str, data: Batch, epochs: int = 4) -> tuple[Classifier, nn.Module]:
    config = {
        **CONFIG, "regime": regime_name, "attack_fraction": 0.5, "attack": "pgd", "attack_steps": 2,
        "epsilon": 0.02, "selection_measure": "default", "selection_score": "mean",
    }  # fmt: skip
    model = Classifier(config, manifest())
    network, regime = model.network(), from_config(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for epoch in range(epochs):
        for rows in torch.randperm(len(data)).split(20):
            progress = Progress(epoch, epochs)
            network.train()
            chosen = regime(model, network, data.select(rows.tolist()))
            optimiser.zero_grad()
            model.loss(network, chosen.batch, progress).total.backward()
            optimiser.step()
    return model, network
