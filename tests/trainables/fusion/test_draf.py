"""DRAF's weights, its passes and what may move what, in closed form."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.fusion.base import Fused
from trustsweep.trainables.fusion.draf import UNCERTAINTIES, Draf, DrafNetwork
from trustsweep.trainables.fusion.encoders import Encoder, McDropout
from trustsweep.trainables.fusion.inputs import gather
from trustsweep.trainables.uncertainty import ensemble_maps

torch.set_num_threads(1)
NOW = Progress(0, 3)
#: Every way in which three modalities may be there but none of them.
PRESENT = torch.tensor(list(itertools.product([True, False], repeat=3))[:-1])
TABLES = Manifest(
    name="toy",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(),
    image_scale=1.0,
    classes=("well", "ill", "worse"),
    mean=(),
    std=(),
    split_counts={"train": 4},
    columns={},
    fingerprint="0",
    tabular=tuple(Feature(name=name) for name in "abc"),
    modalities=tuple(
        Modality(name=name, kind=Kind.TABULAR, column="tabular", indices=(number,))
        for number, name in enumerate("abc")
    ),
)


def toy() -> Batch:
    draws = torch.Generator().manual_seed(0)
    size = len(PRESENT)
    return Batch(
        sample_id=tuple(map(str, range(size))),
        image=torch.zeros(size, 0),
        tabular=torch.randn(size, 3, generator=draws),
        label=torch.arange(size) % 3,
        present=PRESENT.float(),
        severity=PRESENT * torch.randint(3, PRESENT.shape, generator=draws).float(),
    )


def build(**config: object) -> tuple[Draf, DrafNetwork]:
    """With heads that are surer than new ones, and each of its own modality."""
    defaults = {**Space(["draf"], {}).defaults("draf"), "dim": 8, "passes": 4, "dropout": 0.3}
    model = Draf({**defaults, **config}, TABLES)
    torch.manual_seed(0)
    network = model.network().eval()
    assert isinstance(network, DrafNetwork)
    for head in network.unimodal.parameters():
        nn.init.normal_(head)
    return model, network


def say(network: DrafNetwork) -> Fused:
    fused: Fused = network(*gather(toy(), TABLES))
    return fused


def test_without_sensitivity_all_that_is_there_weighs_the_same() -> None:
    _, network = build(alpha=0.0, beta=0.0)
    assert torch.equal(say(network).weights, PRESENT / PRESENT.sum(dim=1, keepdim=True))


def test_of_endless_sensitivity_the_surest_modality_alone_weighs() -> None:
    _, network = build(alpha=1e6)
    fused = say(network)
    surest = fused.more["uncertainty"].masked_fill(~PRESENT, torch.inf).argmin(dim=1)
    assert len(surest.unique()) == 3
    assert torch.equal(fused.weights, F.one_hot(surest, 3).float())


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_weights_are_a_softmax_that_no_shift_of_all_uncertainties_moves(shift: float) -> None:
    _, network = build(alpha=3.0, beta=2.0)
    fused = say(network)
    uncertain = fused.more["uncertainty"] + shift
    raw = torch.exp(-3 * uncertain - 2 * fused.more["corruption"].sigmoid()) * PRESENT
    torch.testing.assert_close(fused.weights, raw / raw.sum(dim=1, keepdim=True))


def test_uncertainty_is_the_heads_normalised_entropy_and_its_two_parts() -> None:
    found = {}
    for part in UNCERTAINTIES:
        fused = say(build(weigh_by=part)[1])
        p = fused.more["unimodal"].softmax(dim=-1).detach().double().numpy()
        found[part] = fused.more["uncertainty"]
        assert bool(((found[part] >= 0) & (found[part] <= 1)).all())
    total = scipy.stats.entropy(p.mean(axis=0), axis=-1, base=3)
    aleatoric = scipy.stats.entropy(p, axis=-1, base=3).mean(axis=0)
    expected = {"total": total, "aleatoric": aleatoric, "epistemic": total - aleatoric}
    for part, values in expected.items():
        np.testing.assert_allclose(found[part].detach(), values, atol=1e-6)
    assert (total - aleatoric).max() > 0.1


@pytest.mark.parametrize("passes", [1, 7])
@pytest.mark.parametrize("classes", [2, 5])
def test_entropies_of_an_ensemble_are_scipys(passes: int, classes: int) -> None:
    p = np.random.default_rng(0).dirichlet(np.full(classes, 0.3), size=(passes, 20))
    maps = ensemble_maps(torch.from_numpy(p))
    np.testing.assert_allclose(maps["entropy"], scipy.stats.entropy(p.mean(0), axis=-1))
    np.testing.assert_allclose(
        maps["expected-entropy"], scipy.stats.entropy(p, axis=-1).mean(0), atol=1e-12
    )
    # The mean divergence of the passes from their mean, which is not how it is computed.
    information = scipy.stats.entropy(p, p.mean(0)[None], axis=-1).mean(0)
    np.testing.assert_allclose(maps["mutual-information"], information, atol=1e-12)


@pytest.mark.parametrize("through", [False, True])
def test_the_prediction_moves_the_heads_of_modalities_only_if_allowed(through: bool) -> None:
    model, network = build(through_uncertainty=through, lambda_unimodal=0.0)
    model.loss(network, toy(), NOW).total.backward()
    gradients = [p.grad for p in network.unimodal.parameters()]
    assert any(g is not None and bool(g.any()) for g in gradients) == through


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_detection_is_the_binary_cross_entropy_of_flags_over_what_is_there(weight: float) -> None:
    model, network = build(lambda_corruption=weight, lambda_unimodal=0.0)
    batch, logits = toy(), say(network).more["corruption"]
    assert batch.severity is not None
    flags = (batch.severity > 0).float()
    assert 0 < flags[PRESENT].mean() < 1
    each = [
        F.binary_cross_entropy(logits[row, there].sigmoid(), flags[row, there])
        for row, there in enumerate(PRESENT)
    ]
    loss = model.loss(network, batch, NOW)
    torch.testing.assert_close(loss.parts["corruption"], weight * torch.stack(each).mean())
    loss.total.backward()
    gradients = [p.grad for p in network.detectors.parameters()]
    assert any(g is not None and bool(g.any()) for g in gradients) == (weight > 0)
    unsaid = dataclasses.replace(batch, severity=None)
    clean = F.softplus(logits)
    expected = weight * torch.stack([c[t].mean() for c, t in zip(clean, PRESENT, strict=True)])
    torch.testing.assert_close(
        model.loss(network, unsaid, NOW).parts["corruption"], expected.mean()
    )


def test_loss_is_of_the_mean_over_passes() -> None:
    model, network = build(lambda_corruption=0.0, lambda_unimodal=0.5)
    batch, fused = toy(), say(network)
    assert batch.label is not None
    mean = fused.logits.softmax(dim=-1).mean(dim=0)
    torch.testing.assert_close(model.predict(network, batch).probability, mean)
    expected = F.nll_loss(mean.log(), batch.label, reduction="none")
    own = fused.more["unimodal"].softmax(dim=-1).mean(dim=0).log()
    for row, there in enumerate(PRESENT):
        label = batch.label[row].expand(int(there.sum()))
        expected[row] += 0.5 * F.nll_loss(own[row, there], label)
    torch.testing.assert_close(model.loss(network, batch, NOW).per_sample, expected)


def test_the_passes_mean_is_near_the_network_without_dropout() -> None:
    config = {"alpha": 0.0, "dropout": 0.1}
    (model, many), (_, without) = build(**config, passes=500), build(**{**config, "dropout": 0.0})
    found, expected = (model.predict(n, toy()) for n in (many, without))
    torch.testing.assert_close(found.probability, expected.probability, atol=0.02, rtol=0)
    assert bool((found.uncertainty["mutual-information"] > 1e-4).all())
    assert not (expected.uncertainty["mutual-information"] > 1e-6).any()


def test_evaluation_draws_the_same_masks_for_every_sample_and_call() -> None:
    drop = McDropout(0.4, seed=3).eval()
    ones = torch.ones(20, 5, 2, 30)
    masks = drop(ones)
    assert torch.equal(drop(ones), masks)
    assert torch.equal(masks, masks[:, :1, :1].expand_as(masks))
    assert len({tuple(mask.flatten().tolist()) for mask in masks[:, 0, 0]}) == 20
    assert not torch.equal(McDropout(0.4, seed=4).eval()(ones), masks)
    assert torch.equal(drop(ones[:1]), ones[:1])
    trained = drop.train()(ones)
    assert len({tuple(mask.flatten().tolist()) for mask in trained[0, :, 0]}) == 5


@pytest.mark.parametrize("training", [False, True])
def test_dropout_keeps_what_it_says_and_its_mean(training: bool) -> None:
    kept = McDropout(0.3, seed=0).train(training)(torch.ones(1000, 1, 100))
    assert (kept > 0).float().mean().item() == pytest.approx(0.7, abs=0.005)
    torch.testing.assert_close(kept[kept > 0].unique(), torch.tensor([1 / 0.7]))
    assert kept.mean().item() == pytest.approx(1, abs=0.01)


def test_passes_done_as_one_batch_are_those_of_a_loop() -> None:
    _, network = build()
    tokens = torch.randn(6, 4, 8)
    for encoder in network.encoders.values():
        assert isinstance(encoder, Encoder)
        norm, *first = encoder.first
        bend, *second = encoder.second
        together = encoder.tail(tokens, passes=5)
        masks = [drop(torch.ones(5, 1, 8)) for drop in (first[0], second[0])]
        for number in range(5):
            hidden = first[1](norm(tokens.mean(dim=1)) * masks[0][number])
            single = second[2](second[1](bend(hidden) * masks[1][number]))
            torch.testing.assert_close(together[number], single)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("passes", 0, "'passes' must be a whole number"),
        ("alpha", -1.0, "'alpha' is -1"),
        ("weigh_by", "totl", "did you mean 'total'"),
        ("through_uncertainty", "no", "must be true or false, not 'no'"),
    ],
)
def test_bad_value_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**{key: value})


def test_what_weighs_is_bounded_by_ln_k() -> None:
    """A head that knows nothing has uncertainty 1, whatever K; one that is sure has 0."""
    _, network = build()
    for head in network.unimodal.parameters():
        nn.init.zeros_(head)
    uncertainty: Tensor = say(network).more["uncertainty"]
    torch.testing.assert_close(uncertainty, torch.ones_like(uncertainty))
    for head in network.unimodal.values():
        assert isinstance(head, nn.Linear)
        nn.init.constant_(head.bias[0], 1 / math.ulp(1.0))
    assert not say(network).more["uncertainty"].any()
