"""A sweep without Ray: the searcher, sampler and ledger, with trials that end as their ids say."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from trustsweep.distributed.run.folder import objectives_of
from trustsweep.distributed.run.halt import Halt
from trustsweep.distributed.run.ledger import Ledger, Record, State, trial_id
from trustsweep.distributed.search.sampling import Sampling
from trustsweep.distributed.search.searcher import ParetoSearch
from trustsweep.distributed.workers.outcome import CONFIG, TRIAL
from trustsweep.search_spaces.study import Study

identify = partial(trial_id, data_fingerprint="data", code="1", evaluation={})


def make_study(search: dict | None = None, **changes) -> Study:
    """Two methods and their whole conditional space, unless told otherwise."""
    raw = {
        "name": "simulated",
        "methods": ["unet", "evidential-unet"],
        "objectives": ["dice_area", "clean.ece"],
        "search": {"trials": 16, "sampler": "random", **(search or {})},
        **changes,
    }
    return Study.model_validate(raw)


def fate(record: Record) -> Record:
    """How a trial ends: a function of its id alone."""
    draws = np.random.default_rng(list(record.id.encode()))
    names = ("dice_area", "clean.ece", "clean.dice")
    metrics = {name: float(draws.random()) for name in names}
    state = draws.choice([State.COMPLETED, State.STOPPED, State.FAILED], p=[0.7, 0.2, 0.1])
    return replace(record, state=State(state), epochs=1, metrics=metrics)


class Simulated:
    """One session of a sweep in a folder: what is there is gone on with."""

    def __init__(
        self,
        folder: Path,
        study: Study,
        slots: int = 1,
        fate: Callable[[Record], Record] = fate,
        repeats: Callable[[], list[Record]] = list,
    ) -> None:
        self.ledger = Ledger(folder)
        self.sampling = Sampling(study, objectives_of(study), identify)
        self.halt = Halt()
        self.search = ParetoSearch(
            study.search.trials, self.ledger, self.sampling, repeats, self.halt
        )
        self.slots = slots
        self.fate = fate
        self.flying: dict[str, str] = {}
        self.finished = False
        for _ in self.ledger.of(State.RUNNING):
            self.suggest()

    def suggest(self) -> dict | str | None:
        """Ask the searcher as Tune does."""
        name = f"tune-{len(self.flying)}-{len(self.ledger.records)}"
        suggestion = self.search.suggest(name)
        if isinstance(suggestion, dict):
            assert self.ledger.records[suggestion[TRIAL]].config == suggestion[CONFIG]
            self.flying[name] = suggestion[TRIAL]
        return suggestion

    def end(self, name: str, fate: Callable[[Record], Record] | None = None) -> None:
        """End a trial by Tune's name of it."""
        self.ledger.end((fate or self.fate)(self.ledger.records[self.flying.pop(name)]))
        self.search.on_trial_complete(name, {})

    def step(self) -> bool:
        """The next event, the same whatever happened before; False if there is none."""
        if len(self.flying) < self.slots and isinstance(self.suggest(), dict):
            return True
        if self.flying:
            self.end(min(self.flying, key=lambda name: self.flying[name]))
            return True
        return False

    def run(self) -> list[Record]:
        """To the end."""
        while self.step():
            pass
        return self.by_number()

    def by_number(self) -> list[Record]:
        return sorted(self.ledger.records.values(), key=lambda r: (r.stage, r.number))


@pytest.fixture
def simulated() -> type[Simulated]:
    return Simulated


@pytest.fixture
def study_of() -> Callable[..., Study]:
    return make_study
