"""How surely a front is reached: the empirical attainment function of several seeds' fronts.

A seed attains a point of objective space if some model of its front is at least as good there in
every objective. The empirical attainment function gives the share of the seeds that attain a
point; with two objectives its level sets are staircases. Source: Grunert da Fonseca, Fonseca,
Hall (2001), "Inferential performance assessment of stochastic optimisers and the attainment
function", EMO 2001, LNCS 1993.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trustsweep.distributed.statistics.front import Direction, Floats, losses_of


def attainment_surfaces(
    fronts: Sequence[ArrayLike], directions: Sequence[Direction]
) -> list[Floats]:
    """The staircases that at least 1, 2, ..., R of R seeds attain, over two objectives.

    Args:
        fronts: The (n, 2) values of each seed's models; a model with a NaN is left out. A seed
            without a model attains nothing.
        directions: Which way each objective is better.

    Returns:
        Surface k - 1 is attained by k seeds or more: its (v, 2) corners, ascending in the first
        objective, none of which dominates another; (0, 2) where fewer than k seeds attain
        anything. The first is the best front of all seeds, the last what every seed attains, and
        each lies inside the one before it. Exact, O(R n log n) for n models in all.

    Raises ValueError for values of another shape.
    """
    if len(directions) != 2:
        raise ValueError(f"surfaces are drawn over 2 objectives, not {len(directions)}")
    losses = [_usable(front, directions) for front in fronts]
    stops = np.unique(np.concatenate([seed[:, 0] for seed in losses])) if losses else np.empty(0)
    # A seed's best second loss among its models whose first loss is no greater than the stop.
    depths = np.array([_stairs(seed, stops) for seed in losses]).reshape(len(losses), len(stops))
    surfaces = []
    for depth in np.sort(depths, axis=0):
        falls = depth < np.concatenate([[np.inf], depth[:-1]])
        # 0.0 is added so that no corner is written as -0.0.
        corners = losses_of(np.column_stack([stops[falls], depth[falls]]), directions) + 0.0
        surfaces.append(corners[np.argsort(corners[:, 0])])
    return surfaces


def attainment_share(
    points: ArrayLike, fronts: Sequence[ArrayLike], directions: Sequence[Direction]
) -> Floats:
    """Share of the seeds that attain each of p points, over any number of objectives.

    Args:
        points: (p, m) values; a point with a NaN gets NaN.
        fronts: The (n, m) values of each seed's models, as in `attainment_surfaces`.
        directions: Which way each objective is better.

    Returns:
        (p,) shares in [0, 1]; NaN without a seed. Raises ValueError for values of another shape.
    """
    goals = losses_of(points, directions)
    if not len(fronts):
        return np.full(len(goals), np.nan)
    attained = [
        (_usable(front, directions)[:, None, :] <= goals).all(axis=2).any(axis=0)
        for front in fronts
    ]
    return np.where(np.isnan(goals).any(axis=1), np.nan, np.mean(attained, axis=0))


def _stairs(losses: Floats, stops: Floats) -> Floats:
    ordered = losses[np.argsort(losses[:, 0], kind="stable")]
    best = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:, 1])])
    return best[np.searchsorted(ordered[:, 0], stops, side="right")]


def _usable(front: ArrayLike, directions: Sequence[Direction]) -> Floats:
    """A seed's models with smaller better, those with a NaN left out."""
    losses = losses_of(front, directions)
    return losses[~np.isnan(losses).any(axis=1)]
