"""Who trains, who validates, who tests: by patient, and in proportion for every site and label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import UserError
from data_pipelines.registry import nearest
from data_pipelines.schema import Split

RATIOS: Mapping[Split, float] = {Split.TRAIN: 0.70, Split.VAL: 0.15, Split.TEST: 0.15}

#: Where a patient's images are in several published splits, the last of these keeps them.
_HELD_OUT = (Split.TRAIN, Split.VAL, Split.TEST, Split.OOD)


@dataclass(frozen=True)
class Member:
    """What splitting needs to know of a sample; `split` is the publisher's, if there is one."""

    patient: str
    site: str
    stratum: int | None
    split: Split | None = None


def assign(
    members: Sequence[Member],
    *,
    ratios: Mapping[Split, float] = RATIOS,
    ood_site: str | None = None,
    seed: int = 0,
) -> list[Split | None]:
    """The split of each member; None for those left out.

    The whole of `ood_site` becomes `Split.OOD`. Published splits are kept, and nothing is added to
    them: with a published test set the rest is divided into train and validation alone, in the
    proportion of their `ratios`. A patient who is in more than one split stays in the most held-out
    one, and the patient's other images are left out.

    Raises `UserError` for an unknown `ood_site` and for a split that is asked for and stays empty.
    """
    if ood_site is not None and ood_site not in (sites := sorted({m.site for m in members})):
        raise UserError(
            f"ood_site: no site {ood_site!r}{nearest(ood_site, sites)} Sites: {', '.join(sites)}."
        )
    fixed = [Split.OOD if m.site == ood_site else m.split for m in members]
    held: dict[str, Split] = {}
    for member, split in zip(members, fixed, strict=True):
        if split is not None:
            held[member.patient] = max(split, held.get(member.patient, split), key=_HELD_OUT.index)
    free = {
        split: ratio
        for split, ratio in ratios.items()
        if ratio > 0 and split not in {s for s in fixed if s is not Split.OOD}
    }
    # Where the publisher gave every split, what was given none can only add to training.
    unheld = [m for m in members if m.patient not in held]
    drawn = _stratified(unheld, free or {Split.TRAIN: 1.0}, seed)
    result = [
        drawn.get(m.patient)
        if m.patient not in held
        # An image without a published split is left out as well: it must not join the test set.
        else (held[m.patient] if split is held[m.patient] else None)
        for m, split in zip(members, fixed, strict=True)
    ]
    _check_filled(result, members, ratios)
    return result


def assert_disjoint(rows: Iterable[tuple[str, str]]) -> None:
    """Over (patient, split) pairs. Raises `UserError` if a patient is in two splits."""
    seen: dict[str, str] = {}
    for patient, split in rows:
        if seen.setdefault(patient, split) != split:
            raise UserError(
                f"a patient is in both {seen[patient]} and {split}: the test would measure memory. "
                "Prepare the data again."
            )


def _stratified(
    members: Sequence[Member], ratios: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """Patient to split. Greedy: each patient, those with most images first, goes where the sum
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
        if empty.sum() == len(order) - place:  # the last patients go where there is nobody yet
            growth[~empty] = np.inf
        best = int(np.argmin(growth))
        filled[best] += mine
        result[patients[patient]] = splits[best]
    return result


def _counts(members: Sequence[Member]) -> tuple[NDArray[np.float64], list[str]]:
    """(patients, strata) images of each patient in each stratum, and the patients, sorted."""
    tally: dict[str, Counter[object]] = defaultdict(Counter)
    for m in members:
        tally[m.patient].update(
            [("all",), ("site", m.site), ("label", m.stratum), (m.site, m.stratum)]
        )
    strata = sorted({s for counter in tally.values() for s in counter}, key=repr)
    patients = sorted(tally)
    counts = np.array([[tally[p][s] for s in strata] for p in patients], dtype=np.float64)
    return counts, patients


def _check_filled(
    result: Sequence[Split | None], members: Sequence[Member], ratios: Mapping[Split, float]
) -> None:
    for split, ratio in ratios.items():
        if ratio > 0 and split not in result:
            patients = len({m.patient for m in members})
            raise UserError(
                f"the {split} split is empty: {len(members)} images of {patients} patients are too "
                "few to divide. Give more images, or other ratios."
            )
