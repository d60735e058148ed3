"""DRIFA-Net's gates against convolutions, closed forms and the symmetry of its branches."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Feature, Manifest, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.fusion.drifa import (
    AcrossAttention,
    DrifaNet,
    DrifaNetwork,
    FusionRound,
    WithinAttention,
    pooled_sum,
)

torch.set_num_threads(1)
DIM = 6
#: Present in two samples of two branches: both, and the first alone.
PRESENT = torch.tensor([[True, True], [True, False]])


def branches(seed: int = 0) -> list[Tensor]:
    """Two samples of an image's 12 tokens and a table's one."""
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(2, length, DIM, generator=draws) for length in (12, 1)]


def seeded(module: type[nn.Module], *size: int) -> nn.Module:
    """A module whose scales are not all alike, as they are at first."""
    torch.manual_seed(0)
    made = module(*size)
    for name, parameter in made.named_parameters():
        if "scale" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return made


def test_gate_within_a_branch_is_that_of_convolutions_and_pools_over_a_grid() -> None:
    within = seeded(WithinAttention, DIM)
    assert isinstance(within, WithinAttention)
    grid = torch.randn(2, DIM, 3, 4)

    def conv(layer: nn.Linear, features: Tensor) -> Tensor:
        return F.conv2d(features, layer.weight[:, :, None, None], layer.bias).sigmoid()

    def pools(average: Tensor, peak: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(average, 1) + F.adaptive_max_pool2d(peak, 1)

    g1 = conv(within.hierarchy[0], grid)
    g2 = conv(within.hierarchy[1], g1)
    g3 = conv(within.hierarchy[2], g1 + g2)
    g4 = conv(within.hierarchy[3], g3)
    overall = conv(within.join, torch.cat([pools(g1, g2), pools(g3, g4)], dim=1)).flatten(1)
    l1 = F.adaptive_avg_pool2d(conv(within.local[0], grid), 1)
    local = (l1 + conv(within.local[1], l1)).flatten(1)
    expected = torch.sigmoid(within.scale_global * overall + within.scale_local * local)
    tokens = grid.flatten(2).transpose(1, 2)
    torch.testing.assert_close(within.gate(tokens), expected)
    torch.testing.assert_close(within(tokens), tokens * expected[:, None] * within.scale)


@pytest.mark.parametrize("module", [WithinAttention, AcrossAttention])
def test_gates_lie_between_0_and_1(module: type[nn.Module]) -> None:
    sizes, inputs = ((2, DIM), (branches(), PRESENT))
    if module is WithinAttention:
        sizes, inputs = (DIM,), (branches()[0],)
    gate = seeded(module, *sizes).gate(*inputs)
    assert gate.shape == (2, DIM)
    assert bool(((gate > 0) & (gate < 1)).all())


def test_gate_across_branches_of_layers_of_zeros_counts_those_present() -> None:
    across = AcrossAttention(2, DIM)
    for layer in (across.overall, *across.local):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    # Every σ is 1/2: three pools of the sum, and three of each branch that is there.
    expected = torch.tensor([1.5 + 3.0, 1.5 + 1.5]).sigmoid()[:, None].expand(2, DIM)
    torch.testing.assert_close(across.gate(branches(), PRESENT), expected)


def test_swapping_branches_with_their_parameters_swaps_outputs() -> None:
    fuse = seeded(FusionRound, 2, DIM)
    swapped = copy.deepcopy(fuse)
    swapped.within, swapped.across.local = fuse.within[::-1], fuse.across.local[::-1]
    swapped.across.scale = nn.Parameter(fuse.across.scale.flip(0))
    first, second = fuse(branches(), PRESENT)
    other_second, other_first = swapped(branches()[::-1], PRESENT.flip(1))
    assert torch.equal(first, other_first)
    assert torch.equal(second, other_second)


def test_an_absent_branch_adds_nothing_to_pools_and_gates() -> None:
    here, gone = branches()[0], branches(seed=1)[1]
    pools = pooled_sum([here, gone], PRESENT)
    alone = torch.stack([here.amin(dim=1), here.mean(dim=1), here.amax(dim=1)])
    assert torch.equal(pools[:, 1], alone[:, 1])
    torch.testing.assert_close(pools[:, 0], alone[:, 0] + gone[0])
    across, single = seeded(AcrossAttention, 2, DIM), AcrossAttention(1, DIM)
    kept = {k: v for k, v in across.state_dict().items() if not k.startswith("local.1")}
    single.load_state_dict({**kept, "scale": across.scale[:1]})
    gate = across.gate([here, gone], PRESENT)[1]
    torch.testing.assert_close(gate, single.gate([here], PRESENT[:, :1])[1], rtol=0, atol=0)


def test_before_the_head_an_absent_branch_is_its_learned_vector() -> None:
    manifest = Manifest(
        name="toy",
        tasks=(TaskName.CLASSIFICATION,),
        image_shape=(1, 16, 20),
        image_scale=1.0,
        classes=("well", "ill"),
        mean=(0.4,),
        std=(0.2,),
        split_counts={"train": 4},
        columns={},
        fingerprint="0",
        tabular=(Feature(name="age"),),
    )
    config = {**Space(["drifa-net"], {}).defaults("drifa-net"), "dropout": 0.0, "passes": 3}
    net = DrifaNet(config, manifest).network()
    assert isinstance(net, DrifaNetwork)
    nn.init.normal_(net.absent)
    values = (torch.rand(2, 1, 16, 20), torch.rand(2, 1))
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    logits = net(values, nothing).logits
    torch.testing.assert_close(logits, net.head(net.absent.flatten()).expand(3, 2, -1))
    # Of one that is there, the other's vector is still its own part of the head's input.
    one = torch.tensor([[False, True], [False, True]])
    before = net(values, one).logits
    net.absent.data[1] += 1
    assert torch.equal(net(values, one).logits, before)
    net.absent.data[0] += 1
    moved = net.head.weight[:, : net.absent.shape[1]].sum(dim=1)
    torch.testing.assert_close(net(values, one).logits - before, moved.expand(3, 2, -1))
