"""Train, validation and test splits: by patient, stratified by site and label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.schema import Split

RATIOS: Mapping[Split, float] = {Split.TRAIN: 0.70, Split.VAL: 0.15, Split.TEST: 0.15}

#: Where a patient's images are in several published splits, the last of these keeps them.
_HELD_OUT = (Split.TRAIN, Split.VAL, Split.TEST, Split.OOD)

Part = TypeVar("Part")


@dataclass(frozen=True)
class SplitMember:
    """The facts of a sample that splitting uses.

    Attributes:
        patient, site: As in `Sample`.
        strata: The labels that splits keep in proportion; several where several are possible.
        split: The publisher's, if there is one.
    """

    patient: str
    site: str
    strata: tuple[int, ...] = ()
    split: Split | None = None


def assign(
    members: Sequence[SplitMember],
    *,
    ratios: Mapping[Split, float] = RATIOS,
    ood_sites: Collection[str] = (),
    seed: int = 0,
) -> list[Split | None]:
    """The split of each member; None for those left out.

    The whole of `ood_sites` becomes `Split.OOD`. Published splits are kept, and nothing is added to
    them: with a published test set the rest is divided into train and validation alone, in the
    proportion of their `ratios`. A patient who is in more than one split stays in the most held-out
    one, and the patient's other images are left out.

    Raises `UserError` for an unknown site and for a requested split that stays empty.
    """
    fixed = _fixed(members, ood_sites)
    free = {
        split: ratio
        for split, ratio in ratios.items()
        if ratio > 0 and split not in {s for s in fixed if s is not Split.OOD}
    }
    # Where the publisher gave every split, what was given none can only add to training.
    shares = free or {Split.TRAIN: 1.0}
    result = _deal(members, fixed, lambda rest: _stratified(rest, shares, seed))
    _check_filled(result, members, [split for split, ratio in ratios.items() if ratio > 0])
    return result


def fold(
    members: Sequence[SplitMember],
    index: int,
    count: int,
    *,
    ood_sites: Collection[str] = (),
    seed: int = 0,
) -> list[Split | None]:
    """The splits of fold `index` (from 0) of a cross-validation with `count` folds.

    Patients are dealt to `count` parts of equal size, stratified as in `assign`. Part `index` is
    the test split, the next one validation, the others train. Where the publisher gave a test set
    it stays the test split, and part `index` is validation; so with a published validation set.

    Raises `UserError` as `assign`, and where the publisher leaves nothing to divide.
    """
    fixed = _fixed(members, ood_sites)
    held = [s for s in (Split.TEST, Split.VAL) if s not in fixed]
    if not held:
        raise UserError("folds: the publisher gave test and validation; there is nothing to fold.")
    if count <= len(held):
        raise UserError(f"folds: at least {len(held) + 1} here, not {count}.")
    uses = dict(zip(((index + i) % count for i in range(len(held))), held, strict=True))

    def deal(rest: Sequence[SplitMember]) -> dict[str, Split]:
        parts = _stratified(rest, dict.fromkeys(range(count), 1.0), seed)
        return {patient: uses.get(part, Split.TRAIN) for patient, part in parts.items()}

    result = _deal(members, fixed, deal)
    _check_filled(result, members, [Split.TRAIN, Split.VAL, Split.TEST])
    return result


def sites(members: Iterable[SplitMember]) -> list[str]:
    """Every site, sorted; leave-one-site-out makes each of them `ood_sites` in turn."""
    return sorted({m.site for m in members})


def assert_disjoint(rows: Iterable[tuple[str, str]]) -> None:
    """Over (patient, split) pairs. Raises `UserError` if a patient is in two splits."""
    split_of: dict[str, str] = {}
    for patient, split in rows:
        if split_of.setdefault(patient, split) != split:
            raise UserError(
                f"a patient is in both {split_of[patient]} and {split}: the test would measure "
                "memory. Prepare the data again."
            )


def _fixed(members: Sequence[SplitMember], ood_sites: Collection[str]) -> list[Split | None]:
    """The split that is not ours to choose; None where it is."""
    known = sites(members)
    for site in ood_sites:
        if site not in known:
            raise UserError(
                f"ood_site: no site {site!r}{nearest(site, known)} Sites: {', '.join(known)}."
            )
    return [Split.OOD if m.site in ood_sites else m.split for m in members]


def _deal(
    members: Sequence[SplitMember],
    fixed: Sequence[Split | None],
    draw: Callable[[Sequence[SplitMember]], Mapping[str, Split]],
) -> list[Split | None]:
    """Every member's split: the fixed one, or the one drawn for its patient."""
    held: dict[str, Split] = {}
    for member, split in zip(members, fixed, strict=True):
        if split is not None:
            held[member.patient] = max(split, held.get(member.patient, split), key=_HELD_OUT.index)
    drawn = draw([m for m in members if m.patient not in held])
    return [
        drawn.get(m.patient)
        if m.patient not in held
        # An image without a published split is left out as well: it must not join the test set.
        else (held[m.patient] if split is held[m.patient] else None)
        for m, split in zip(members, fixed, strict=True)
    ]


def _stratified(
    members: Sequence[SplitMember], ratios: Mapping[Part, float], seed: int
) -> dict[str, Part]:
    """Patient to part. Greedy: each patient, those with most images first, goes where the sum
    over strata of (count - expected)² / expected grows least. Strata are site and label together,
    each of them alone, and all images, so that many small strata cannot add up to a tilt."""
    if not members:
        return {}
    counts, patients = _counts(members)
    shares = np.array(list(ratios.values())) / sum(ratios.values())
    expected = shares[:, None] * counts.sum(axis=0)
    splits = list(ratios)
    filled = np.zeros_like(expected)
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    order = shuffled[np.argsort(-counts[shuffled].max(axis=1), kind="stable")]
    result = {}
    for place, patient in enumerate(order):
        mine = counts[patient]
        growth = (mine * (2 * (filled - expected) + mine) / expected).sum(axis=1)
        empty = ~filled.any(axis=1)
        if empty.sum() == len(order) - place:  # the last patients fill the empty splits
            growth[~empty] = np.inf
        best = int(np.argmin(growth))
        filled[best] += mine
        result[patients[patient]] = splits[best]
    return result


def _counts(members: Sequence[SplitMember]) -> tuple[NDArray[np.float64], list[str]]:
    """(patients, strata) images of each patient in each stratum, and the patients, sorted."""
    tally: dict[str, Counter[object]] = defaultdict(Counter)
    for m in members:
        tally[m.patient].update([("all",), ("site", m.site)])
        tally[m.patient].update(("label", stratum) for stratum in m.strata)
        tally[m.patient].update((m.site, stratum) for stratum in m.strata)
    strata = sorted({s for counter in tally.values() for s in counter}, key=repr)
    patients = sorted(tally)
    counts = np.array([[tally[p][s] for s in strata] for p in patients], dtype=np.float64)
    return counts, patients


def _check_filled(
    result: Sequence[Split | None], members: Sequence[SplitMember], required: Sequence[Split]
) -> None:
    for split in required:
        if split not in result:
            patients = len({m.patient for m in members})
            raise UserError(
                f"the {split} split is empty: {len(members)} images of {patients} patients are too "
                "few to divide. Give more images, or other ratios."
            )
