"""Early, late and MDA-style fusion against numpy and their closed forms."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.fusion.base import Fused, FusionMethod, FusionNetwork
from trustsweep.trainables.fusion.encoders import Stem
from trustsweep.trainables.fusion.inputs import gather
from trustsweep.trainables.fusion.mda import MdaNetwork
from trustsweep.trainables.registry import METHODS

torch.set_num_threads(1)
NOW = Progress(0, 3)
STEPS = 4
SERIES = tuple(Feature(name=name) for name in ("heart", "breath"))
#: Every way in which four modalities may be there but none of them.
PRESENT = torch.tensor(list(itertools.product([True, False], repeat=4))[:-1])
TOY = Manifest(
    name="toy",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(2, 8, 8),
    image_scale=1.0,
    classes=("well", "ill", "worse"),
    mean=(0.3, 0.6),
    std=(0.2, 0.4),
    split_counts={"train": 4},
    columns={},
    fingerprint="0",
    series=SERIES,
    modalities=(
        Modality(name="flair", kind=Kind.IMAGE, column="image", indices=(0,)),
        Modality(name="heart", kind=Kind.SERIES, column="series", indices=(0,)),
        Modality(name="lungs", kind=Kind.SERIES, column="series", indices=(1,)),
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(1,)),
    ),
)


def toy() -> Batch:
    draws = torch.Generator().manual_seed(0)
    size = len(PRESENT)
    parts = [torch.rand(size, STEPS, 2, generator=draws) for _ in range(3)]
    return Batch(
        sample_id=tuple(map(str, range(size))),
        image=torch.rand(size, 2, 8, 8, generator=draws),
        series=parts[0],
        series_mask=parts[1].round(),
        series_delta=parts[2],
        label=torch.arange(size) % 3,
        present=PRESENT.float(),
    )


def build(name: str, **config: object) -> tuple[FusionMethod, FusionNetwork]:
    defaults = {**Space([name], {}).defaults(name), "width": 4, "depth": 2, "dim": 8}
    model: FusionMethod = METHODS[name]({**defaults, **config}, TOY)
    torch.manual_seed(0)
    network = model.network().eval()
    for part, value in network.named_parameters():
        if "heads" in part:
            nn.init.normal_(value)
    return model, network


def say(network: FusionNetwork) -> Fused:
    fused: Fused = network(*gather(toy(), TOY))
    return fused


def own_probabilities(network: FusionNetwork) -> np.ndarray:
    """(B, M, K) of late fusion's networks."""
    return say(network).more["unimodal"][0].softmax(dim=-1).detach().double().numpy()


def test_late_mean_is_that_of_the_present() -> None:
    model, network = build("late-fusion", rule="mean")
    found = model.predict(network, toy()).probability.detach()
    for row, (own, there) in enumerate(zip(own_probabilities(network), PRESENT, strict=True)):
        np.testing.assert_allclose(found[row], own[there].mean(axis=0), atol=1e-6)


def test_late_majority_is_the_share_of_votes() -> None:
    model, network = build("late-fusion", rule="majority")
    found = model.predict(network, toy()).probability.detach()
    for row, (own, there) in enumerate(zip(own_probabilities(network), PRESENT, strict=True)):
        votes = np.bincount(own[there].argmax(axis=1), minlength=3) / int(there.sum())
        np.testing.assert_allclose(found[row], votes, atol=1e-6)
    assert len(found.unique(dim=0)) > 3


def test_late_rules_differ_in_neither_loss_nor_gradient() -> None:
    gradients, losses = [], []
    for rule in ("mean", "majority"):
        model, network = build("late-fusion", rule=rule)
        image = toy().image.requires_grad_()
        batch = toy().with_image(image)
        model.predict(network, batch).scores[:, 0].sum().backward()
        gradients.append(image.grad)
        losses.append(model.loss(network, batch, NOW).per_sample)
    assert bool(gradients[0].any())
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(*losses)


def test_late_loss_is_the_mean_of_each_networks_own() -> None:
    model, network = build("late-fusion")
    found, label = model.loss(network, toy(), NOW).per_sample.detach(), toy().label
    assert label is not None
    for row, (own, there) in enumerate(zip(own_probabilities(network), PRESENT, strict=True)):
        expected = -np.log(own[there, label[row]]).mean()
        assert found[row].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("normalise", ["softmax", "sigmoid"])
def test_mda_of_equal_scores_is_the_mean_of_what_is_there(normalise: str) -> None:
    _, network = build("mda", normalise=normalise)
    assert isinstance(network, MdaNetwork)
    nn.init.zeros_(network.query.weight)
    fused = say(network)
    equal = PRESENT / PRESENT.sum(dim=1, keepdim=True)
    torch.testing.assert_close(fused.weights, equal)
    pooled = torch.einsum("bm,bmd->bd", equal, network.value(entered(network)))
    torch.testing.assert_close(fused.logits[0], network.head(pooled))


def entered(network: MdaNetwork) -> Tensor:
    """(B, M, D), the tokens z."""
    h = network.features(gather(toy(), TOY)[0])[0]
    parts = [layer(h[:, m]) for m, layer in enumerate(network.enter.values())]
    z: Tensor = network.norm(torch.stack(parts, dim=1))
    return z


@pytest.mark.parametrize("normalise", ["softmax", "sigmoid"])
def test_mda_weights_are_normalised_scores(normalise: str) -> None:
    _, network = build("mda", normalise=normalise)
    assert isinstance(network, MdaNetwork)
    z, found = entered(network), say(network).weights
    assert found is not None
    for row, there in enumerate(PRESENT):
        query = network.query(z[row, there].mean(dim=0))
        scores = network.key(z[row, there]) @ query / 8**0.5
        raw = scores.sigmoid() if normalise == "sigmoid" else scores.exp()
        torch.testing.assert_close(found[row, there], raw / raw.sum())


def test_early_fusion_has_one_encoder_for_each_grid() -> None:
    _, network = build("early-fusion")
    assert sum(isinstance(module, Stem) for module in network.modules()) == 2


def test_early_fusion_joins_modalities_to_the_column_they_came_from() -> None:
    _, network = build("early-fusion")
    seen: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, Stem):
            module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    whole = dataclasses.replace(TOY, modalities=())
    batch = dataclasses.replace(toy(), present=None)
    network(*gather(batch, TOY))
    for found, expected in zip(seen, gather(batch, whole)[0], strict=True):
        assert torch.equal(found, expected)


def test_early_fusion_takes_an_absent_channel_for_its_mean() -> None:
    _, network = build("early-fusion")
    values, present = gather(toy(), TOY)
    flair, *rest = values
    mean = torch.where(PRESENT[:, 0, None, None, None], flair, TOY.mean[0])
    found, expected = network(values, present), network((mean, *rest), present)
    torch.testing.assert_close(found.logits, expected.logits)
    # Unlike the mean, absence is said.
    said = network((mean, *rest), torch.ones_like(present))
    assert F.mse_loss(said.logits, expected.logits) > 1e-4
