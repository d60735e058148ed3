"""HEALNet against its recursion written out, torch's own attention and closed forms."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Feature, Manifest, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.fusion.healnet import (
    Attention,
    HealNet,
    HealNetwork,
    fourier_positions,
)

torch.set_num_threads(1)
#: By name: an image whose tokens lie on a 2 x 3 grid, a series of 5 steps, a table.
MANIFEST = Manifest(
    name="toy",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(1, 16, 20),
    image_scale=1.0,
    classes=("well", "ill", "worse"),
    mean=(0.4,),
    std=(0.2,),
    split_counts={"train": 4},
    columns={},
    fingerprint="0",
    series=(Feature(name="pulse"),),
    tabular=(Feature(name="age"), Feature(name="dose")),
)
DRAWS = torch.Generator().manual_seed(0)
VALUES = tuple(torch.rand(2, *shape, generator=DRAWS) for shape in [(1, 16, 20), (5, 3), (2,)])


def method(**settings: float) -> HealNet:
    return HealNet({**Space(["healnet"], {}).defaults("healnet"), **settings}, MANIFEST)


def network(**settings: float) -> HealNetwork:
    torch.manual_seed(0)
    made = method(**settings).network().eval()
    assert isinstance(made, HealNetwork)
    return made


@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("there", [(0, 1, 2), (0, 2), (1,)])
def test_what_is_absent_is_an_update_left_out(there: tuple[int, ...], blocks: int) -> None:
    net = network(self_attention=blocks)
    present = torch.zeros(2, 3, dtype=torch.bool)
    present[:, there] = True
    state, contexts = net.latents.expand(2, -1, -1), net.contexts(VALUES)
    for layer in net.layers:
        for number in there:
            state = layer(state, contexts[number], number)
    assert torch.equal(net(VALUES, present).logits[0], net.head(state.mean(dim=1)))


def test_samples_skip_updates_on_their_own() -> None:
    net = network(self_attention=1)
    present = torch.tensor([[True, False, True], [False, True, True]])
    mixed = net(VALUES, present).logits[0]
    for row in range(2):
        alone = net(VALUES, present[row].expand(2, -1)).logits[0, row]
        assert torch.equal(mixed[row], alone)


def test_tokens_may_come_in_any_order_if_their_positions_come_along() -> None:
    net = network()
    layer, context = net.layers[0], net.contexts(VALUES)[0]
    state, order = net.latents.expand(2, -1, -1), torch.randperm(context.shape[1])
    straight = layer(state, context, 0)
    torch.testing.assert_close(layer(state, context[:, order], 0), straight)
    # The tokens alone are not enough: the image's content is at other places then.
    channels = net.stems[0].channels
    moved = torch.cat([context[:, order, :channels], context[:, :, channels:]], dim=2)
    assert not torch.allclose(layer(state, moved, 0), straight)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_that_of_torch_with_logits_doubled(heads: int) -> None:
    torch.manual_seed(1)
    own = Attention(dim=8, width=5, heads=heads, dropout=0.0).eval()
    usual = nn.MultiheadAttention(8, heads, kdim=5, vdim=5, batch_first=True).eval()
    weights = {
        "q_proj_weight": 2 * own.query.weight,
        "k_proj_weight": own.key.weight,
        "v_proj_weight": own.value.weight,
        "in_proj_bias": torch.zeros(24),
        "out_proj.weight": own.leave[0].weight,
        "out_proj.bias": own.leave[0].bias,
    }
    usual.load_state_dict(weights)
    latents, context = torch.randn(2, 3, 8), torch.randn(2, 7, 5)
    expected, _ = usual(latents, context, context)
    torch.testing.assert_close(own(latents, context), nn.functional.leaky_relu(expected, 0.01))


def test_positions_are_those_of_the_formula() -> None:
    found = fourier_positions((3, 2))
    assert found.shape == (6, 2 * 5)
    for row, (u, v) in enumerate((u, v) for u in (-1.0, 0.0, 1.0) for v in (-1.0, 1.0)):
        expected = [
            entry
            for x in (u, v)
            for entry in (
                *(math.sin(math.pi * f * x) for f in (1, 5)),
                *(math.cos(math.pi * f * x) for f in (1, 5)),
                x,
            )
        ]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(16, 20), (1, 9), (12, 16, 10)])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_grid_has_as_many_points_as_there_are_tokens(shape: tuple[int, ...], depth: int) -> None:
    manifest = dataclasses.replace(MANIFEST, image_shape=(1, *shape))
    config = {**Space(["healnet"], {}).defaults("healnet"), "depth": depth}
    net = HealNet(config, manifest).network()
    assert isinstance(net, HealNetwork)
    values = (torch.rand(2, 1, *shape), *VALUES[1:])
    for stem, value, tokens in zip(net.stems, values, net.tokens(values), strict=True):
        assert math.prod(stem.grid(value)) == tokens.shape[1]
        assert len(stem.grid(value)) == stem.axes
        assert tokens.shape[2] == stem.channels


def test_heads_that_do_not_divide_the_latents_are_refused() -> None:
    with pytest.raises(UserError, match=r"'latent_dim' is 32.*'heads', 5"):
        method(heads=5)
