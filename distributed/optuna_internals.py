"""What this program relies on of Optuna beyond its public interface, in one place.

Optuna promises nothing of these: pyproject.toml bounds the version, and the tests of sampling and
of hypervolumes fail where one of them moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial


def hypervolume(losses: npt.NDArray[np.float64], corner: npt.NDArray[np.float64]) -> float | None:
    """Volume that (n, m) losses dominate below `corner` (m,); None where Optuna's routine, which
    it offers only inside a plot, has moved."""
    try:
        from optuna._hypervolume import compute_hypervolume
    except ImportError:
        return None
    return float(compute_hypervolume(losses, corner))


class SamplerState:
    """What Optuna's samplers note in the system attributes of a study and of its trials.

    Trials are named by the number that the storage gives them.
    """

    def __init__(self, storage: InMemoryStorage, study: str) -> None:
        self._storage = storage
        self._study = storage.get_study_id_from_name(study)

    def number(self, trial: Trial) -> int:
        """The storage's number of a trial."""
        number: int = trial._trial_id
        return number

    def add(self, trial: FrozenTrial) -> int:
        """Enter an ended trial; returns its number."""
        return self._storage.create_new_trial(self._study, trial)

    def restore(self, trial: Trial, notes: Mapping[str, Any]) -> None:
        """Put `notes_of` a trial of an earlier process back."""
        for key, value in notes.items():
            self._storage.set_trial_system_attr(trial._trial_id, key, value)

    def restore_study(self, notes: Mapping[str, Any]) -> None:
        """Put `sequence` of an earlier process back."""
        for key, value in notes.items():
            self._storage.set_study_system_attr(self._study, key, value)

    def restore_parents(self, key: str, numbers: Sequence[int]) -> None:
        """Put one of `parents` of an earlier process back, by this one's numbers."""
        self._storage.set_study_system_attr(self._study, key, list(numbers))

    def settle(self, trial: Trial) -> None:
        """Drop what TPE leaves for other processes until all of a trial is suggested; it is."""
        for key in self._storage.get_trial_system_attrs(trial._trial_id):
            if key.startswith("tpe:relative_params"):
                self._storage.set_trial_system_attr(trial._trial_id, key, "")

    def notes_of(self, trial: Trial) -> dict[str, Any]:
        """NSGA's generation of a trial."""
        attributes = self._storage.get_trial_system_attrs(trial._trial_id)
        return {key: value for key, value in attributes.items() if "generation" in key}

    def sequence(self) -> dict[str, Any]:
        """The place in QMC's sequence."""
        attributes = self._storage.get_study_system_attrs(self._study)
        return {key: value for key, value in attributes.items() if key.startswith("qmc")}

    def parents(self) -> dict[str, list[int]]:
        """NSGA's choices of parents, their numbers by the key of the choice."""
        attributes = self._storage.get_study_system_attrs(self._study)
        return {key: value for key, value in attributes.items() if ":parent:" in key}
