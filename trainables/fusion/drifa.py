"""DRIFA-Net: gates of channels within each modality and across modalities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.contract import Config
from trustsweep.trainables.fusion.base import Fused, FusionMethod, FusionNetwork
from trustsweep.trainables.fusion.encoders import Encoder, McDropout
from trustsweep.trainables.fusion.tokens import TokenNetwork
from trustsweep.trainables.settings import whole


class DrifaNet(FusionMethod):
    """Dual robust information fusion attention (Dhar et al. 2024, arXiv 2412.01248).

    Each modality is a branch: its tokens, brought to `dim` channels, pass `blocks` rounds of a
    residual block of its own with `WithinAttention` (the paper's MFA) after each of its two layers,
    and of `AcrossAttention` (MIFA), whose gate of channels is common to all branches. The branches'
    means over tokens are concatenated and go, through dropout of T passes that is on in evaluation
    as well, to a softmax head. The prediction is the mean over passes.

    What is absent is an extension, as the paper knows no missing modality: such a branch is left
    out of the sums of `AcrossAttention` and replaced by a learned vector before the head.

    Departures from the paper: any number of branches, not two, and one head, as the modalities are
    of one patient with one label, where the paper pairs patients of two tasks; tokens are those of
    the encoders that all fusion models here share (`encoders`), and as those of tables have no
    neighbours, a block's convolutions are linear layers over single tokens; layer instead of batch
    normalisation, which keeps every sample independent of its batch; dropout of whole channels once
    before the head, after pooling, not after every block too, so that T passes cost one of the
    branches; T passes of one network, not of an ensemble of five. The published code gates once
    more between a block and `AcrossAttention`.

    Config: `passes` (T) and `blocks`, both >= 1, and that of `FusionMethod`.
    """

    uncertainties = ("entropy", "expected-entropy", "mutual-information", "least-confidence")

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        self.passes = whole(config, "passes", low=1)
        self.blocks = whole(config, "blocks", low=1)

    def network(self) -> FusionNetwork:
        return DrifaNetwork(self.make_encoders(), self)


class DrifaNetwork(TokenNetwork):
    """See `DrifaNet`."""

    def __init__(self, encoders: dict[str, Encoder], method: DrifaNet) -> None:
        super().__init__(encoders)
        dim, branches = method.dim, len(encoders)
        self._passes = method.passes
        self.enter = nn.ModuleList(nn.Linear(stem.channels, dim) for stem in self.stems)
        self.rounds = nn.ModuleList(FusionRound(branches, dim) for _ in range(method.blocks))
        self.absent = nn.Parameter(torch.zeros(branches, dim))
        self.dropout = McDropout(method.dropout, seed=0)
        self.head = nn.Linear(branches * dim, method.outputs)

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        tokens = self.tokens(values)
        branches = [enter(part) for enter, part in zip(self.enter, tokens, strict=True)]
        for fuse in self.rounds:
            branches = fuse(branches, present)
        pooled = torch.stack([branch.mean(dim=1) for branch in branches], dim=1)
        features = torch.where(present[..., None], pooled, self.absent).flatten(1)
        return Fused(self.head(self.dropout(features.expand(self._passes, -1, -1))))


class FusionRound(nn.Module):
    """A residual block of each branch, then attention across them."""

    def __init__(self, branches: int, dim: int) -> None:
        super().__init__()
        self.within = nn.ModuleList(ResidualBlock(dim) for _ in range(branches))
        self.across = AcrossAttention(branches, dim)

    def forward(self, branches: list[Tensor], present: Tensor) -> list[Tensor]:
        """(B, L, C) of each branch and (B, M) bool to the same as `branches`."""
        inner = [block(branch) for block, branch in zip(self.within, branches, strict=True)]
        return self.across(inner, present)


class ResidualBlock(nn.Module):
    """Two linear layers over tokens, each gated and normalised, beside a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(dim, dim),
            WithinAttention(dim),
            nn.LayerNorm(dim),
            nn.ReLU(),
            nn.Linear(dim, dim),
            WithinAttention(dim),
            nn.LayerNorm(dim),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to the same."""
        return F.relu(tokens + self.body(tokens))


class WithinAttention(nn.Module):
    """A gate a of a branch's channels from all its tokens F: F ⊙ a ⊙ α (the paper's MFA).

    a = σ(s_g · h + s_l · c). Of the hierarchy g1 = σ(W1 F), g2 = σ(W2 g1), g3 = σ(W3 (g1 + g2)),
    g4 = σ(W4 g3) (HIFA), h is σ(W [mean g1 + max g2, mean g3 + max g4]), pooled over tokens. The
    local part (CLIA) is c = l + σ(V' l) of l = mean σ(V F). s_g is a scalar, s_l and α are vectors
    over channels, all 1 at first.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hierarchy = nn.ModuleList(nn.Linear(dim, dim) for _ in range(4))
        self.join = nn.Linear(2 * dim, dim)
        self.local = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        self.scale_global = nn.Parameter(torch.ones(1))
        self.scale_local = nn.Parameter(torch.ones(dim))
        self.scale = nn.Parameter(torch.ones(dim))

    def gate(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to (B, C) in (0, 1)."""
        first = self.hierarchy[0](tokens).sigmoid()
        second = self.hierarchy[1](first).sigmoid()
        third = self.hierarchy[2](first + second).sigmoid()
        fourth = self.hierarchy[3](third).sigmoid()
        levels = [first.mean(dim=1) + second.amax(dim=1), third.mean(dim=1) + fourth.amax(dim=1)]
        overall = self.join(torch.cat(levels, dim=1)).sigmoid()
        local = self.local[0](tokens).sigmoid().mean(dim=1)
        local = local + self.local[1](local).sigmoid()
        return (self.scale_global * overall + self.scale_local * local).sigmoid()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to the same."""
        return tokens * self.gate(tokens)[:, None] * self.scale


class AcrossAttention(nn.Module):
    """A gate a of channels that all branches F_m have in common: F_m ⊙ a ⊙ α_m (the paper's MIFA).

    a = σ(s_g · h + s_l · c). With p each of min, mean and max over tokens and sums over the present
    m, h = Σ_p σ(W Σ_m p(F_m)) and c = Σ_p Σ_m p(σ(V_m F_m)). s_g is a scalar, s_l and α_m are
    vectors over channels, all 1 at first.
    """

    def __init__(self, branches: int, dim: int) -> None:
        super().__init__()
        self.overall = nn.Linear(dim, dim)
        self.local = nn.ModuleList(nn.Linear(dim, dim) for _ in range(branches))
        self.scale_global = nn.Parameter(torch.ones(1))
        self.scale_local = nn.Parameter(torch.ones(dim))
        self.scale = nn.Parameter(torch.ones(branches, dim))

    def gate(self, branches: list[Tensor], present: Tensor) -> Tensor:
        """(B, L, C) of each branch and (B, M) bool to (B, C) in (0, 1)."""
        overall = self.overall(pooled_sum(branches, present)).sigmoid().sum(dim=0)
        inner = [layer(b).sigmoid() for layer, b in zip(self.local, branches, strict=True)]
        local = pooled_sum(inner, present).sum(dim=0)
        return (self.scale_global * overall + self.scale_local * local).sigmoid()

    def forward(self, branches: list[Tensor], present: Tensor) -> list[Tensor]:
        """(B, L, C) of each branch and (B, M) bool to the same as `branches`."""
        gate = self.gate(branches, present)[:, None]
        return [b * gate * scale for b, scale in zip(branches, self.scale, strict=True)]


def pooled_sum(branches: list[Tensor], present: Tensor) -> Tensor:
    """(B, L, C) of each branch to (3, B, C): min, mean and max over tokens, summed over branches.

    Args:
        present: (B, M) bool; an absent modality adds exactly nothing.
    """
    pools = [torch.stack([b.amin(dim=1), b.mean(dim=1), b.amax(dim=1)]) for b in branches]
    return torch.where(present.T[:, None, :, None], torch.stack(pools), 0).sum(dim=0)
