"""Checkpoints: safetensors with JSON beside the tensors, written so that a kill leaves none half.

`state-<epochs>.safetensors` lets a trial go on; `best.safetensors` is the model of its best epoch
so far, where it has patience; `model.safetensors` and `model.json` are what is left of a finished
one. Torch is loaded by what needs it: who only tidies up does without.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from trustsweep.data_pipelines.machine import replacing, write_atomically

if TYPE_CHECKING:
    import torch

MODEL, CARD = "model.safetensors", "model.json"
_BEST = "best.safetensors"


@dataclass(frozen=True)
class Best:
    """The epoch so far after which the clean validation NLL was lowest, and that NLL.

    With `patience` p > 0 a training ends p epochs after it, at the latest after all of its epochs;
    its last evaluation and the model that is kept are of this epoch. The NLL, as it is proper, and
    the same for every study: an objective may be one that a trial can win by chance for an epoch.
    """

    epoch: int
    loss: float

    @classmethod
    def of(cls, best: Best | None, epoch: int, loss: float) -> Best:
        """What is best once an epoch has given this loss; the earlier of two that are equal.

        Idempotent: after a restart, an epoch may be reported again.
        """
        loss = math.inf if math.isnan(loss) else loss
        return cls(epoch, loss) if best is None or loss < best.loss else best


def save_state(folder: Path, tensors: Mapping[str, torch.Tensor], epochs: int) -> None:
    """Persist the state after `epochs` epochs; the one before stays until the next is written.

    A worker may die after writing but before its epoch is acknowledged, so that the trial is
    taken up from the state before. Raises OSError if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / _state_name(epochs), tensors)
    (folder / _state_name(epochs - 2)).unlink(missing_ok=True)


def load_state(folder: Path, epochs: int) -> dict[str, torch.Tensor]:
    """The state after `epochs` epochs."""
    return _load(folder / _state_name(epochs))


def latest_epochs(folder: Path) -> int:
    """Epochs after which the newest readable state was kept; 0 where there is none.

    What a machine that lost its power left half-written is passed over.
    """
    for path in sorted(folder.glob("state-*.safetensors"), reverse=True):
        try:
            with safe_open(path, "pt"):
                return int(path.stem.removeprefix("state-"))
        except SafetensorError:
            continue
    return 0


def save_best(folder: Path, network: torch.nn.Module, best: Best) -> None:
    """Persist the model of the best epoch so far, in place of the one before."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v for k, v in _plain(network).items()}
    tensors["epoch"] = torch.tensor(best.epoch)
    tensors["loss"] = torch.tensor(best.loss, dtype=torch.float64)
    _save(folder / _BEST, tensors)


def find_best(folder: Path) -> Best | None:
    """The best epoch of which a model is kept; None where there is none that can be read."""
    path = folder / _BEST
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            return Best(int(file.get_tensor("epoch")), float(file.get_tensor("loss")))
    except SafetensorError:
        return None


def load_best(folder: Path, network: torch.nn.Module) -> None:
    """Fill `network` with the weights of `save_best`."""
    stored = _load(folder / _BEST)
    network.load_state_dict(
        {k.removeprefix("model."): v for k, v in stored.items() if k.startswith("model.")}
    )


def save_model(folder: Path, network: torch.nn.Module, card: Mapping[str, Any]) -> None:
    """Persist a finished network with its card (config, metrics), and drop the training states."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / MODEL, _plain(network))
    write_atomically(folder / CARD, json.dumps(card, indent=2, sort_keys=True))
    discard_states(folder)


def finished_card(folder: Path) -> dict[str, Any] | None:
    """The card of a model that `save_model` has kept whole, else None."""
    card = folder / CARD
    return dict(json.loads(card.read_text(encoding="utf-8"))) if card.is_file() else None


def discard_states(folder: Path) -> None:
    """Free the space of a trial that will not go on."""
    for state in (*folder.glob("state-*.safetensors"), folder / _BEST):
        state.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def load_model(folder: Path, network: torch.nn.Module) -> None:
    """Fill `network` with the weights of `save_model`."""
    network.load_state_dict(_load(folder / MODEL))


def _plain(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}


def _state_name(epochs: int) -> str:
    return f"state-{epochs:05d}.safetensors"


def _load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def _save(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as partial:
        try:
            save_file(dict(tensors), partial)
        except SafetensorError as error:
            # A full disk: the tensors are whole, and the format has no limits of its own.
            raise OSError(f"{path}: {error}") from error
        with partial.open("rb") as file:
            os.fsync(file.fileno())
