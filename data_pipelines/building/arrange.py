"""Which data sets one preparation makes: one, a fold each, or a held-out site each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trustsweep.data_pipelines.building import splits
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Split

#: The value of `ood_site` that holds out every site in turn.
EACH = "each"
_NAMES = (Split.TRAIN, Split.VAL, Split.TEST)


@dataclass(frozen=True)
class Arrangement:
    """How samples are divided; `splits` does the dividing.

    Attributes:
        ratios: Shares of train, validation and test.
        ood_sites: Sites held out as a whole.
        each_site: Hold out every site in turn, a data set each.
        folds: Data sets of a cross-validation; 0 for none.
        seed: Of every draw.
    """

    ratios: tuple[float, ...]
    ood_sites: tuple[str, ...]
    each_site: bool
    folds: int
    seed: int

    @classmethod
    def parse(cls, ratios: Any, ood_site: Any, folds: Any, seed: int) -> Arrangement:
        """From the options of `prepare`. Raises `UserError` naming an invalid one."""
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 0 or folds == 1:
            raise UserError(f"folds: a whole number from 2 on, or 0 for none, not {folds!r}.")
        sites = [ood_site] if isinstance(ood_site, str) else ood_site or []
        if not isinstance(sites, list | tuple) or not all(isinstance(s, str) for s in sites):
            raise UserError(f"ood_site: a site, a list of sites, or {EACH!r}, not {ood_site!r}.")
        if folds and EACH in sites:
            raise UserError(f"folds, ood_site: folds or {EACH!r} site, not both.")
        each = list(sites) == [EACH]
        return cls(_shares(ratios), () if each else tuple(sites), each, folds, seed)

    def to_dict(self) -> dict[str, Any]:
        """The settings, for the manifest."""
        sites = EACH if self.each_site else list(self.ood_sites)
        return {"ratios": list(self.ratios), "ood_site": sites, "folds": self.folds}

    def divide(self, members: Sequence[splits.SplitMember]) -> dict[str, list[Split | None]]:
        """Name of a data set to the split of each member; the name of a single one is "".

        Raises `UserError` as `splits.assign` and `splits.fold`.
        """
        ratios: Mapping[Split, float] = dict(zip(_NAMES, self.ratios, strict=True))
        if self.folds:
            return {
                f"fold-{i}": splits.fold(
                    members, i, self.folds, ood_sites=self.ood_sites, seed=self.seed
                )
                for i in range(self.folds)
            }
        if not self.each_site:
            sites = self.ood_sites
            return {"": splits.assign(members, ratios=ratios, ood_sites=sites, seed=self.seed)}
        known = splits.sites(members)
        if len(known) < 2:
            raise UserError(f"ood_site: every image is of one site, {known[0]!r}; none can be out.")
        return {
            f"without-{_file_name(site)}": splits.assign(
                members, ratios=ratios, ood_sites=[site], seed=self.seed
            )
            for site in known
        }


def _shares(ratios: Any) -> tuple[float, ...]:
    valid = (
        isinstance(ratios, list | tuple)
        and len(ratios) == len(_NAMES)
        and all(isinstance(ratio, float | int) and 0 <= ratio <= 1 for ratio in ratios)
    )
    if not valid or not math.isclose(sum(ratios), 1, abs_tol=1e-6):
        raise UserError(
            f"ratios: three shares of train, val and test that add up to 1, not {ratios}."
        )
    return tuple(float(ratio) for ratio in ratios)


def _file_name(site: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", site) or "unnamed"
