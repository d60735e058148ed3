"""What a family of networks is, which one a trial has, and weights from a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.layers import Standardise
from trustsweep.trainables.registry import NETWORKS, NetworkKind
from trustsweep.trainables.settings import flag, number, whole, word


class NetworkFamily(ABC):
    """A family of networks for images, 2-D or 3-D, of any size.

    What it builds keeps every sample independent of its batch, in training as in evaluation, so
    that an attack on one image never moves another: instance, group or layer normalisation, never
    batch normalisation. Its parameters are those of its space, search_spaces/spaces/networks/
    <name>.yaml, or of a family from outside of this repository the class attribute `space`.

    Raises:
        UserError: for a missing or impossible value in `config`.
    """

    #: "pixels": (B, outputs, *spatial), as segmentation asks for; "images": (B, outputs).
    kind: ClassVar[NetworkKind]

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        self.config = config
        self.manifest = manifest

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return self.manifest.spatial_dims

    @abstractmethod
    def layers(self, outputs: int) -> Sequence[nn.Module]:
        """What follows the standardised image, freshly initialised, one after the other.

        The last parameters are those of the layer that depends on `outputs`; no other does.
        """

    def build(self, outputs: int) -> nn.Module:
        """From images (B, C, *spatial) in [0, 1] to `outputs` raw outputs; standardises first."""
        standardise = Standardise(self.manifest.mean, self.manifest.std, self.dims)
        return nn.Sequential(standardise, *self.layers(outputs))

    def whole(self, key: str, low: int = 1, high: float = float("inf")) -> int:
        """See `settings.whole`."""
        return whole(self.config, key, low, high)

    def share(self, key: str) -> float:
        """The number at `key`, in [0, 1]; see `settings.number`."""
        return number(self.config, key, low=0, high=1)

    def flag(self, key: str) -> bool:
        """See `settings.flag`."""
        return flag(self.config, key)


def chosen(
    config: Mapping[str, Any], manifest: Manifest, kind: NetworkKind, default: str
) -> NetworkFamily:
    """The family that `config["network"]` names; `default` where it names none, as in runs from
    before there was a choice.

    Raises:
        UserError: for an unknown one, one of another kind, or a value that it cannot use.
    """
    name = word({"network": default, **config}, "network", NETWORKS.having(kind=kind))
    family: NetworkFamily = NETWORKS[name](config, manifest)
    return family


def load_encoder(network: nn.Module, file: Path) -> None:
    """Fill a network with the weights of a safetensors file that have the names of its own.

    The last layer stays as it is where the file's has another shape or is missing, as of other
    classes. So do weights that the file lacks, and buffers: images are standardised by the
    statistics of the data that are trained on.

    Raises:
        UserError: for a file that cannot be read, one without any of the network's weights, and for
            a weight of another shape.
    """
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"encoder: {file}: cannot be read as safetensors ({error}).") from error
    own = dict(network.named_parameters())
    last = next(reversed(own)).rpartition(".")[0]
    shared = {n: t for n, t in stored.items() if n in own}
    shared = {
        n: t for n, t in shared.items() if t.shape == own[n].shape or n.rpartition(".")[0] != last
    }
    if not any(name.rpartition(".")[0] != last for name in shared):
        raise UserError(
            f"encoder: {file}: holds no weight of this network, such as {next(iter(own))!r}."
        )
    for name, tensor in shared.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"encoder: {file}: {name!r} is {tuple(tensor.shape)}, here "
                f"{tuple(own[name].shape)}. Give the network the parameters of the file's."
            )
    with torch.no_grad():
        for name, tensor in shared.items():
            own[name].copy_(tensor)
