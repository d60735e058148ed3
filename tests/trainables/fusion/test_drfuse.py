"""DrFuse against its published identities, library divergences and its forward pass in loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, logit
from torch import Tensor

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.fusion.drfuse import (
    DrFuse,
    DrFuseNetwork,
    divergence,
    logit_pool,
    rank_loss,
)
from trustsweep.trainables.fusion.inputs import gather

torch.set_num_threads(1)
NOW = Progress(0, 3)
#: Every way in which three modalities may be there, all of them first.
PRESENT = torch.tensor(list(itertools.product([True, False], repeat=3)))
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
features = st.lists(st.floats(-30, 30), min_size=2, max_size=4)


def toy(present: Tensor = PRESENT) -> Batch:
    draws = torch.Generator().manual_seed(0)
    return Batch(
        sample_id=tuple(map(str, range(len(present)))),
        image=torch.zeros(len(present), 0),
        tabular=torch.randn(len(present), 3, generator=draws),
        label=torch.arange(len(present)) % 3,
        present=present.float(),
    )


def build(**config: float) -> tuple[DrFuse, DrFuseNetwork]:
    model = DrFuse({**Space(["drfuse"], {}).defaults("drfuse"), "dim": 8, **config}, TABLES)
    torch.manual_seed(0)
    network = model.network().eval()
    assert isinstance(network, DrFuseNetwork)
    return model, network


def column(values: list[float]) -> Tensor:
    """(1, M, 1) of M modalities' single feature."""
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1)


def everything(shared: Tensor) -> Tensor:
    return torch.ones(shared.shape[:2], dtype=torch.bool)


@given(features)
def test_pooled_is_the_logit_of_the_mean_of_sigmoids(values: list[float]) -> None:
    shared = column(values)
    found = logit_pool(shared, everything(shared)).item()
    # 1 − p is as small as p may be: from the smaller of both, the logit loses nothing.
    yes, no = expit(np.array(values)).mean(), expit(-np.array(values)).mean()
    expected = logit(yes) if yes < 0.5 else -logit(no)
    assert found == pytest.approx(expected, abs=1e-9)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_pooled_of_two_is_the_published_formula(first: float, second: float) -> None:
    shared = column([first, second])
    total = first + second
    above = torch.tensor([total, total, first, second], dtype=torch.float64)
    below = torch.tensor([0, 0, first, second], dtype=torch.float64)
    expected = (above.logsumexp(0) - below.logsumexp(0)).item()
    assert logit_pool(shared, everything(shared)).item() == pytest.approx(expected, abs=1e-9)


def test_pooled_and_divergence_are_of_what_is_there() -> None:
    shared = torch.randn(len(PRESENT), 3, 5)
    pooled, apart = logit_pool(shared, PRESENT), divergence(shared, PRESENT)
    for row, there in enumerate(PRESENT[:-1]):
        rest = shared[row : row + 1, there]
        torch.testing.assert_close(pooled[row : row + 1], logit_pool(rest, everything(rest)))
        torch.testing.assert_close(apart[row : row + 1], divergence(rest, everything(rest)))
    alone = PRESENT.sum(dim=1) == 1
    torch.testing.assert_close(pooled[alone], shared[PRESENT & alone[:, None]])
    assert not apart[PRESENT.sum(dim=1) < 2].any()


@given(features)
def test_divergence_is_scipys_over_all_pairs(values: list[float]) -> None:
    shared = column(values)
    p = expit(np.array(values))
    pairs = itertools.combinations(np.stack([p, 1 - p], axis=1), 2)
    # The distance is the divergence's root, of which rounding near 0 leaves NaN.
    expected = np.mean([np.nan_to_num(jensenshannon(a, b)) ** 2 for a, b in pairs])
    found = divergence(shared, everything(shared)).item()
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found <= math.log(2)


def test_extreme_features_stay_finite() -> None:
    shared = torch.tensor([[[200.0, -1e4, 0.0], [-200.0, -1e4, 1e4]]], requires_grad=True)
    pooled, apart = logit_pool(shared, everything(shared)), divergence(shared, everything(shared))
    torch.testing.assert_close(pooled[0, :2], torch.tensor([0.0, -1e4]))
    (pooled.sum() + apart.sum()).backward()
    assert shared.grad is not None
    assert bool(shared.grad.isfinite().all())
    opposite = shared.detach()[..., :1]
    assert divergence(opposite, everything(opposite)).item() == pytest.approx(math.log(2))


def test_rank_loss_is_torchs_margin_loss_over_pairs_and_classes() -> None:
    draws = torch.Generator().manual_seed(0)
    streams = torch.rand(50, 4, generator=draws) < 0.7
    attention = torch.rand(50, 3, 4, generator=draws)
    errors = torch.rand(50, 4, generator=draws)
    found = rank_loss(attention, errors, streams)
    for row, there in enumerate(streams):
        total, pairs = torch.zeros(()), list(itertools.combinations(there.nonzero().flatten(), 2))
        for i, j in pairs:
            better = torch.where(errors[row, i] < errors[row, j], 1.0, -1.0).expand(3)
            total += F.margin_ranking_loss(attention[row, :, i], attention[row, :, j], better)
        torch.testing.assert_close(found[row], total / max(len(pairs), 1))


def test_attention_in_the_order_of_errors_costs_nothing() -> None:
    attention = torch.tensor([[[0.6, 0.3, 0.1]]])
    streams = torch.ones(1, 3, dtype=torch.bool)
    assert rank_loss(attention, torch.tensor([[0.1, 0.2, 0.3]]), streams).item() == 0
    assert rank_loss(attention, torch.full((1, 3), 0.2), streams).item() == 0
    reverse = rank_loss(attention, torch.tensor([[0.3, 0.2, 0.1]]), streams).item()
    assert reverse == pytest.approx((0.3 + 0.5 + 0.2) / 3)


def by_hand(network: DrFuseNetwork, h: Tensor, there: list[int]) -> tuple[Tensor, Tensor]:
    """(K,) logits and (K, S) attention of one sample's (M, D) features, of what is there alone."""
    own = list(network.shared.values()), list(network.distinct.values())
    shared = torch.stack([network.common(own[0][m](h[m])) for m in there])
    distinct = [own[1][m](h[m]) for m in there]
    tokens = torch.stack([*distinct, torch.logit(shared.sigmoid().mean(dim=0))])
    query = torch.stack([network.query(token) for token in tokens]).mean(dim=0)
    logits, weights = [], []
    for c in range(3):
        rows = slice(c * 8, (c + 1) * 8)
        keys = F.linear(tokens, network.keys.weight[rows], network.keys.bias[rows])
        weights.append((keys @ query / math.sqrt(8)).softmax(dim=0))
        logits.append(network.head(weights[-1] @ network.value(tokens))[c])
    return torch.stack(logits), torch.stack(weights)


def test_forward_pass_is_that_of_loops_over_what_is_there() -> None:
    _, network = build()
    values, present = gather(toy(), TABLES)
    h = network.features(values)[0]
    fused = network(values, present)
    assert fused.weights is not None
    for row, flags in enumerate(PRESENT[:-1]):
        there = flags.nonzero().flatten().tolist()
        logits, attention = by_hand(network, h[row], there)
        torch.testing.assert_close(fused.logits[0, row], logits)
        torch.testing.assert_close(fused.more["attention"][row, :, [*there, 3]], attention)
        of_streams = attention.mean(dim=0)
        expected = of_streams[:-1] + of_streams[-1] / len(there)
        torch.testing.assert_close(fused.weights[row, there], expected)


def test_loss_is_the_sum_of_its_terms_over_what_is_there() -> None:
    model, network = build(lambda_disentangle=0.5, lambda_attention=2.0)
    batch = toy()
    assert batch.label is not None
    values, present = gather(batch, TABLES)
    fused = network(values, present)
    found = model.loss(network, batch, NOW).per_sample
    more = fused.more
    for row, flags in enumerate(PRESENT[:-1]):
        there, label = flags.nonzero().flatten().tolist(), batch.label[row]
        own = [F.cross_entropy(more["unimodal"][0, row, m], label) for m in there]
        pooled = F.cross_entropy(more["pooled"][row], label)
        cosines = [
            F.cosine_similarity(more["shared"][row, m], more["distinct"][row, m], dim=0).abs()
            for m in there
        ]
        shared = more["shared"][row : row + 1, there]
        apart = divergence(shared, everything(shared))[0]
        attention = more["attention"][row : row + 1][..., [*there, 3]]
        errors = torch.stack([*own, pooled])[None]
        rank = rank_loss(attention, errors, torch.ones_like(errors, dtype=torch.bool))[0]
        expected = F.cross_entropy(fused.logits[0, row], label) + sum(own) + pooled
        expected = expected + 0.5 * (apart + sum(cosines)) + 2 * rank
        torch.testing.assert_close(found[row], expected)


def test_order_of_attention_does_not_move_the_heads_that_set_it() -> None:
    model, network = build()
    batch = toy()
    values, present = gather(batch, TABLES)
    model.terms(network(values, present), batch, present)["attention"].sum().backward()
    heads = [*network.unimodal.parameters(), *network.pooled.parameters()]
    assert all(p.grad is None or not p.grad.any() for p in heads)
    assert network.keys.weight.grad is not None
    assert bool(network.keys.weight.grad.any())


@pytest.mark.parametrize("key", ["lambda_disentangle", "lambda_attention"])
def test_bad_value_is_named(key: str) -> None:
    with pytest.raises(UserError, match=f"'{key}' is -1"):
        build(**{key: -1.0})
