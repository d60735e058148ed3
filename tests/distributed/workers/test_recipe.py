"""Optimiser, schedule, class weights and the mean of weights, against torch's own."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.distributed.run.checkpoints import Best
from trustsweep.distributed.workers.recipe import Average, TrainingRecipe, class_weights
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.tasks import task_named

torch.set_num_threads(1)


def recipe(task=TaskName.CLASSIFICATION, prior=None, method="classifier", **more):
    return TrainingRecipe(Space([method], more).defaults(method), task_named(task), prior)


def rates(made, steps=50):
    """Learning rate and momentum of each step."""
    network = nn.Linear(2, 1)
    optimiser = made.make_optimiser(network)
    found = []
    for step in range(steps):
        made.set_rates(optimiser, Progress(10 * step / steps, 10))
        group = optimiser.param_groups[0]
        found.append((group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
    return found


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_one_cycle_is_torchs(optimiser):
    steps = 2000
    made = recipe(optimiser=optimiser, schedule="one-cycle", warm_up=0.0)
    reference = made.make_optimiser(nn.Linear(2, 1))
    top = reference.param_groups[0]["lr"]
    # Its rise ends a step earlier than ours, which the tolerance allows for.
    scheduler = OneCycleLR(reference, max_lr=top, total_steps=steps)
    for lr, momentum in rates(made, steps):
        group = reference.param_groups[0]
        own = group["betas"][0] if "betas" in group else group["momentum"]
        assert lr == pytest.approx(group["lr"], abs=0.005 * top)
        assert momentum == pytest.approx(own, abs=0.001)
        reference.step()
        scheduler.step()


def test_cosine_is_torchs_and_constant_stays():
    made = recipe(schedule="cosine", learning_rate=0.01)
    reference = made.make_optimiser(nn.Linear(2, 1))
    scheduler = CosineAnnealingLR(reference, T_max=50)
    for lr, momentum in rates(made):
        assert lr == pytest.approx(reference.param_groups[0]["lr"])
        assert momentum == 0.9
        reference.step()
        scheduler.step()
    assert {lr for lr, _ in rates(recipe(schedule="constant", learning_rate=0.01))} == {0.01}


def test_warm_up_rises_linearly_and_ends_in_the_schedule():
    found = [lr for lr, _ in rates(recipe(schedule="constant", learning_rate=1.0, warm_up=0.2))]
    assert found[:11] == pytest.approx([step / 10 for step in range(11)])
    assert set(found[10:]) == {1.0}


def test_sgd_has_nesterovs_momentum_and_a_rate_of_its_own():
    optimiser = recipe(optimiser="sgd", sgd_learning_rate=0.05).make_optimiser(nn.Linear(2, 1))
    assert isinstance(optimiser, torch.optim.SGD)
    assert (optimiser.defaults["nesterov"], optimiser.defaults["lr"]) == (True, 0.05)
    config = Space(["classifier"], {"optimiser": "sgd"}).defaults("classifier")
    assert "learning_rate" not in config


def test_class_weights_make_every_class_count_alike():
    counts = torch.tensor([10, 30, 0, 60])
    weights = class_weights(counts)
    assert (weights * counts).tolist() == pytest.approx([100 / 3, 100 / 3, 0, 100 / 3])
    prior = Prior(counts=counts.numpy())
    label, losses = torch.tensor([0, 1, 3, 3]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighted = recipe(prior=prior, class_balance="weights").weighted(losses.mean(), losses, label)
    assert float(weighted) == pytest.approx(float((weights[label] * losses).mean()))
    assert recipe(prior=prior).weighted(losses.mean(), losses, label) == losses.mean()


def test_square_roots_are_softer_and_keep_the_mean():
    counts = torch.tensor([10.0, 30.0, 0.0, 60.0])
    weights, softer = class_weights(counts), class_weights(counts, root=True)
    for each in (weights, softer):
        assert float((each * counts).sum() / counts.sum()) == pytest.approx(1)
    assert float(softer[0] / softer[3]) == pytest.approx(math.sqrt(weights[0] / weights[3]))
    assert softer[2] == 0


def test_rows_of_frequencies_are_weighed_by_themselves():
    rates = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    weights = class_weights(rates)
    # As `pos_weight` has it: what is present counts absent / present times as much.
    assert weights[0].tolist() == pytest.approx([1 / 1.8, 1 / 0.2])
    assert weights[1].tolist() == [1, 1]
    assert weights[2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("task", "method", "prior", "shares"),
    [
        (
            TaskName.MULTICLASS_SEGMENTATION,
            "unet",
            Prior(mean=np.stack([np.full((4, 4), 0.2), np.full((4, 4), 0.05)])),
            [0.75, 0.2, 0.05],
        ),
        (
            TaskName.REGION_SEGMENTATION,
            "evidential-unet",
            Prior(mean=np.stack([np.full((4, 4), 0.2), np.full((4, 4), 0.05)])),
            [[0.8, 0.2], [0.95, 0.05]],
        ),
        (TaskName.SEGMENTATION, "unet", Prior(mean=np.full((1, 4, 4), 0.2)), [[0.8, 0.2]]),
        (TaskName.MULTILABEL, "classifier", Prior(rates=np.array([0.1])), [[0.9, 0.1]]),
    ],
    ids=str,
)
def test_pixels_and_labels_are_weighed_by_the_method(task, method, prior, shares):
    made = recipe(task, prior, method, class_balance="weights")
    torch.testing.assert_close(made.element_weights, class_weights(torch.tensor(shares)))
    total = torch.tensor(3.0)
    assert made.weighted(total, torch.ones(4), None) is total
    assert recipe(task, prior, method).element_weights is None
    with pytest.raises(ValueError, match="of the train split"):
        _ = recipe(task, None, method, class_balance="weights").element_weights


def test_class_weights_need_classes_and_their_counts():
    with pytest.raises(UserError, match="multilabel has no class of each image, and healnet"):
        recipe(TaskName.MULTILABEL, method="healnet", class_balance="weights")
    with pytest.raises(ValueError, match="labels of the train split"):
        recipe(class_balance="weights").weighted(
            torch.tensor(1.0), torch.ones(1), torch.zeros(1, dtype=torch.long)
        )


def test_average_is_the_closed_form():
    network = nn.BatchNorm1d(1)
    average = Average(network, 0.5)
    expected = 1.0
    for value in (3.0, -2.0, 8.0, 1.0, 4.0, 4.0):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(value)
        decay = min(0.5, (1 + average.updates) / (10 + average.updates))
        expected = decay * expected + (1 - decay) * value
        average.update(network)
        assert average.network.weight.item() == pytest.approx(expected)
        assert float(average.network.running_mean) == value
    assert network.weight.item() == 4.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"optimiser": "adam"}, "did you mean 'adamw'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"class_balance": "weigths"}, "did you mean 'weights'"),
    ],
)
def test_bad_words_are_named(more, message):
    with pytest.raises(UserError, match=message):
        recipe(**more)


def test_the_best_epoch_is_the_first_of_the_lowest_loss_however_often_it_is_told():
    best = None
    for epoch, loss in enumerate([0.9, 0.5, 0.7, 0.5, math.nan, 0.4, 0.6], 1):
        for _ in range(2):
            best = Best.of(best, epoch, loss)
    assert best == Best(6, 0.4)
    assert Best.of(None, 1, math.nan) == Best(1, math.inf)
    assert Best.of(Best(1, math.inf), 2, 3.0) == Best(2, 3.0)


def test_rates_stay_finite_and_in_range():
    for schedule in ("cosine", "one-cycle", "constant"):
        made = recipe(schedule=schedule, warm_up=0.1)
        factors = [made.factor(Progress(e / 100, 3)) for e in range(300)]
        assert all(math.isfinite(f) and 0 <= f <= 1 for f in factors)
        assert max(factors) > 0.9
