"""Networks that take images as the manifest describes them: (B, C, *spatial) in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustsweep.data_pipelines.lazy import exports

if TYPE_CHECKING:
    from trustsweep.trainables.networks.base import NetworkFamily, chosen, load_encoder
    from trustsweep.trainables.networks.layers import LinearUpsample, PadToMultiple, Standardise
    from trustsweep.trainables.networks.resnet import residual_units

__all__ = [
    "LinearUpsample",
    "NetworkFamily",
    "PadToMultiple",
    "Standardise",
    "chosen",
    "load_encoder",
    "residual_units",
]

__getattr__ = exports(
    __name__,
    {
        "LinearUpsample": "trustsweep.trainables.networks.layers",
        "NetworkFamily": "trustsweep.trainables.networks.base",
        "PadToMultiple": "trustsweep.trainables.networks.layers",
        "Standardise": "trustsweep.trainables.networks.layers",
        "chosen": "trustsweep.trainables.networks.base",
        "load_encoder": "trustsweep.trainables.networks.base",
        "residual_units": "trustsweep.trainables.networks.resnet",
    },
)
