"""What an attack raises: losses of scores in log space, one number for each sample.

A loss of probabilities has no gradient where float32 rounds them to 0 or 1, and a network that is
sure of itself then passes for a robust one. So everything here starts from `Prediction.scores`, and
most of it from **margins**: how far the score of the truth lies above the best other one, above 0
where the prediction is right. A margin never saturates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from trustsweep.data_pipelines.registry import Registry
from trustsweep.trainables.losses import members
from trustsweep.trainables.survival import dies_early, risk

#: A pixel's rank by |margin| at which it counts e times less.
_NEAR = 0.05
#: Margins of infinite scores, where they are averaged.
_MOST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Decisions:
    """The predictions for B samples beside their ground truth, in n decisions each.

    A decision is a sample (classification), one of its labels (several labels), a hazard (survival)
    or a pixel, of several regions each pixel of each region.

    Attributes:
        scores: (B, K, n); see `Prediction.scores`.
        truth: (B, n): long, the class, of K >= 2 columns that exclude each other; else 0 or 1,
            and NaN where a label is unknown.
        regions: How many regions the n decisions are of, as many of each, region by region.
    """

    scores: Tensor
    truth: Tensor
    regions: int = 1

    @cached_property
    def margin(self) -> Tensor:
        """(B, n): score of the truth less the best other one; 0 where the truth is unknown."""
        if self.truth.dtype == torch.long:
            own = self.scores.gather(1, self.truth.unsqueeze(1))
            others = self.scores.scatter(1, self.truth.unsqueeze(1), -math.inf)
            return (own - others.amax(dim=1, keepdim=True)).squeeze(1)
        signed = torch.where(self.truth > 0.5, self.scores.squeeze(1), -self.scores.squeeze(1))
        return signed.masked_fill(self.truth.isnan(), 0)

    @cached_property
    def right(self) -> Tensor:
        """(B, n) bool. A tie is the first class (background), as `argmax` has it."""
        if self.truth.dtype == torch.long:
            return self.scores.argmax(dim=1) == self.truth
        return (self.scores.squeeze(1) > 0) == (self.truth > 0.5)

    @property
    def tempered(self) -> Tensor:
        """(B, n) margins in units of the mean |margin| of their sample and region, which has no
        gradient.

        What bends at a fixed height of these bends at the same share of the decisions whatever
        constant the scores are multiplied by.
        """
        margin = self.by_region(self.margin)
        extent = margin.detach().abs().mean(dim=2, keepdim=True)
        usable = extent.isfinite() & (extent > torch.finfo(extent.dtype).tiny)
        return (margin / torch.where(usable, extent, 1.0)).flatten(1)

    def by_region(self, values: Tensor) -> Tensor:
        """(B, n) to (B, regions, n / regions)."""
        return values.unflatten(1, (self.regions, -1))

    @cached_property
    def own(self) -> Tensor:
        """(B, C, m) bool: the pixels of each foreground (a lesion, each class but the first, each
        region)."""
        if self.truth.dtype == torch.long:
            return members(self.truth, self.scores.shape[1])
        return self.by_region(self.truth > 0.5)

    @cached_property
    def other(self) -> Tensor:
        """(B, C, m) bool: the pixels of which a foreground is the best answer but the true one."""
        if self.truth.dtype == torch.long:
            others = self.scores.detach().scatter(1, self.truth.unsqueeze(1), -math.inf)
            return members(others.argmax(dim=1), self.scores.shape[1])
        return ~self.own

    @cached_property
    def predicted(self) -> Tensor:
        """(B, C, m) bool: the pixels that each foreground is predicted for."""
        right = self.by_region(self.right) if self.regions > 1 else self.right.unsqueeze(1)
        return torch.where(right, self.own, self.other)

    @cached_property
    def counted(self) -> Tensor:
        """(B, C) float64: the share of each foreground in the Dice of an image. Those that the
        image has count alike, the others not, unless there are no others."""
        there = self.own.any(dim=2)
        there = there | ~there.any(dim=1, keepdim=True)
        return there / there.sum(dim=1, keepdim=True).double()


def decision_losses(decisions: Decisions) -> Tensor:
    """(B, n): the cross-entropy −ln p(truth) of each decision, in nats.

    Of log-odds as softplus(−margin): −ln σ(z) has a gradient of σ(−z), which float32 holds down to
    e^−88, where that of ln(σ(z)) is 0 from z = 17 on.
    """
    if decisions.truth.dtype == torch.long:
        # Σ_{k≠y} e^(s_k − s_y), for the same reason.
        own = decisions.scores.gather(1, decisions.truth.unsqueeze(1))
        others = (decisions.scores - own).scatter(1, decisions.truth.unsqueeze(1), -math.inf)
        return F.softplus(others.logsumexp(dim=1))
    loss = F.softplus(-decisions.margin)
    return loss.masked_fill(decisions.truth.isnan(), 0)


def margin_harm(decisions: Decisions) -> Tensor:
    """(B,): minus the mean margin of the decisions, larger is worse.

    Of one decision, above 0 where it is wrong, and the surer of it the worse. Inf for a
    NaN score: a model that breaks there must not pass for a robust one.
    """
    return _broken_worst(-decisions.margin.mean(dim=1))


def overlap_harm(decisions: Decisions) -> Tensor:
    """(B,): 1 − Dice of each image, larger is worse; inf as in `margin_harm`.

    Of several classes or regions the mean over those that the image has, of an image without any
    over all. Between images of equal Dice (those without lesion have 0 or 1) the least margin
    decides, which counts for less than any pixel does.
    """
    both, size = _counts(decisions)
    # float32 would round away what decides between equals.
    dice = torch.where(size == 0, 1.0, 2 * both / size.clamp(min=1))
    # 2/n² is less than the least difference of two values of Dice of n pixels.
    least = decisions.margin.double().amin(dim=1).clamp(-_MOST, _MOST)
    # Never flat, other than a tanh, and within (−1, 1).
    depth = least / (1 + least.abs())
    lost = ((1 - dice) * decisions.counted).sum(dim=1)
    return _broken_worst(lost - depth / (dice.shape[1] * decisions.margin.shape[1]) ** 2)


def _counts(decisions: Decisions) -> tuple[Tensor, Tensor]:
    """(B, C) float64 each: pixels in both truth and prediction, and the sum of those in either."""
    both = (decisions.predicted & decisions.own).sum(dim=2)
    return both.double(), (decisions.predicted.sum(dim=2) + decisions.own.sum(dim=2)).double()


def survival_harm(decisions: Decisions) -> Tensor:
    """(B,) float64: the risk (`survival.risk`) in the direction that breaks most of a patient's
    pairs in the concordance index; inf as in `margin_harm`, 0 where nothing is known.

    A patient with an early event should have a higher risk than all who live longer, so a low risk
    is worst. One with a late event has lived longer than most, and one who is censored is only ever
    the longer-lived of a comparable pair: here a high risk is worst. An event is early in the first
    half of the intervals, which are quartiles of the events' times.
    """
    return _broken_worst(_signed_risk(decisions))


def _signed_risk(decisions: Decisions) -> Tensor:
    level = risk(decisions.scores.squeeze(1))
    signed = torch.where(dies_early(decisions.truth), -level, level)
    return signed.masked_fill(decisions.truth.isnan().all(dim=1), 0)


def _broken_worst(harm: Tensor) -> Tensor:
    return harm.nan_to_num(math.inf, math.inf, -math.inf)


def cross_entropy(decisions: Decisions) -> Tensor:
    """Mean cross-entropy of the decisions, in nats, less 1e-12 of the mean margin.

    That little decides where the cross-entropy has no gradient left that float32 could hold.
    """
    return decision_losses(decisions).mean(dim=1) - 1e-12 * decisions.margin.mean(dim=1)


def masked_cross_entropy(decisions: Decisions) -> Tensor:
    """Cross-entropy of tempered margins over the decisions still right, mean over all.

    Croce et al. 2024, arXiv 2306.12941: wrong decisions need no further push.
    """
    return (F.softplus(-decisions.tempered) * decisions.right).mean(dim=1)


def jensen_shannon(decisions: Decisions) -> Tensor:
    """Jensen-Shannon divergence of the tempered prediction and the truth, mean, in [0, ln 2].

    Croce et al. 2024: flat where a decision is far on either side, so that the ascent works on what
    can be turned. With q the probability of the truth, ½ ln(2/(1 + q)) + ½ [q ln(2q/(1 + q)) +
    (1 − q) ln 2].
    """
    q = torch.sigmoid(2 * decisions.tempered)
    middle = torch.log1p(q)
    kept = torch.xlogy(q, q) - q * middle
    return (0.5 * (2 * math.log(2) - middle + kept)).mean(dim=1)


def margin(decisions: Decisions) -> Tensor:
    """Minus the mean margin of the decisions (Carlini & Wagner 2017, arXiv 1608.04644)."""
    return -decisions.margin.mean(dim=1)


def dlr(decisions: Decisions) -> Tensor:
    """Difference of logits ratio, −margin / (s₍₁₎ − s₍₃₎), mean (Croce & Hein 2020, 2003.01690).

    Of fewer than three columns, which have no third score, minus the margin.
    """
    if decisions.scores.shape[1] < 3:
        return margin(decisions)
    ordered = decisions.scores.sort(dim=1, descending=True).values
    return -(decisions.margin / (ordered[:, 0] - ordered[:, 2] + 1e-12)).mean(dim=1)


def dice(decisions: Decisions) -> Tensor:
    """1 − Dice, as `overlap_harm` has it, with a gradient of the pixels nearest to turning.

    Pixels count by the rank q (in [0, 1]) of their |margin| in their region, not by its height:
    with w = q · e^(−q / 0.05) · (what Dice loses when the pixel turns to its best other answer),
    the gradient is that of −Σ w · margin / |margin|, the last |margin| held. So the attack is the
    same whatever constant the scores are multiplied by, and whatever power they are raised to: a
    method that flattens its scores around the decision hides nothing.
    """
    margin = decisions.by_region(decisions.margin)
    height = margin.detach().abs()
    size = margin.shape[2]
    # As a second argsort would give it, which takes as long as the first.
    order = height.argsort(dim=2)
    places = torch.arange(size, device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(2, order, places).to(margin) / size
    both, either = _counts(decisions)
    # Of 2B/E: the loss with a pixel of the lesion, and with one of the background. One pixel
    # is added, so that an image without either has a gradient.
    share = decisions.counted
    missed = (share * (2 * (either - both) + 1) / (either + 1) ** 2).to(margin)
    alarm = (share * (2 * both + 1) / (either + 1) ** 2).to(margin)
    lost = decisions.own * missed.unsqueeze(2) + decisions.other * alarm.unsqueeze(2)
    if decisions.regions == 1:
        lost = lost.sum(dim=1, keepdim=True)
    weight = lost * (rank + 1 / size) * torch.exp(-rank / _NEAR)
    usable = margin.isfinite()
    floor = 1e-30 * height.mean(dim=2, keepdim=True) + torch.finfo(height.dtype).tiny
    held = weight / torch.maximum(height, floor)
    surrogate = -(torch.where(usable, held, 0) * torch.where(usable, margin, 0)).sum(dim=(1, 2))
    return surrogate - surrogate.detach() + overlap_harm(decisions).detach()


def soft_dice(decisions: Decisions) -> Tensor:
    """1 − Dice of σ(16 · tempered score) in place of 0 or 1: bends at fixed heights, unlike `dice`.

    One pixel is added to both sides, so that an image without lesion has a gradient.
    """
    # Of the wrong side, as σ of what is surely right rounds to 1, where it has no gradient.
    wrong = decisions.by_region(torch.sigmoid(-16 * decisions.tempered))
    own = decisions.own.to(wrong)
    both = (own * (1 - wrong)).sum(dim=2)
    either = both + (decisions.other * wrong).sum(dim=2) + own.sum(dim=2)
    share = decisions.counted.to(wrong)
    return (share * (1 - (2 * both + 1) / (either + 1))).sum(dim=1)


def survival_risk(decisions: Decisions) -> Tensor:
    """The risk in the direction of `survival_harm`, which never saturates."""
    return _signed_risk(decisions).to(decisions.scores.dtype)


#: (Answer) to (B,).
LOSSES = Registry(
    "attack loss",
    {
        "cross-entropy": "trustsweep.trainables.attacks.losses:cross_entropy",
        "masked-cross-entropy": "trustsweep.trainables.attacks.losses:masked_cross_entropy",
        "jensen-shannon": "trustsweep.trainables.attacks.losses:jensen_shannon",
        "margin": "trustsweep.trainables.attacks.losses:margin",
        "dlr": "trustsweep.trainables.attacks.losses:dlr",
        "dice": "trustsweep.trainables.attacks.losses:dice",
        "soft-dice": "trustsweep.trainables.attacks.losses:soft_dice",
        "survival-risk": "trustsweep.trainables.attacks.losses:survival_risk",
    },
)
