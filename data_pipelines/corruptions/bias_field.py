"""Uneven brightness of MRI, as of an inhomogeneous coil."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES

DEGREE = 3


class BiasField(ImageCorruption[float]):
    """Multiplies all channels with exp(Σ c_ijk P_i(z) P_j(y) P_k(x)), c ~ U(−p, p).

    P are the Legendre polynomials on [−1, 1] along each axis, 0 < i + j + k ≤ 3 (Van Leemput et
    al., IEEE TMI 18:885, 1999; the basis of MONAI's `RandBiasField` for volumes). Without a
    constant term the field changes the shading and not the exposure. At p = 0.5, where TorchIO
    draws by default, its logarithm has a standard deviation of about 0.37.
    """

    name = "bias-field"
    severities = SUITES["mri"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        degrees = terms(image.ndim - 2)
        coefficients = random.symmetric(seeds, (len(degrees),)).mul_(parameter)
        return image * field(image.shape[2:], coefficients)[:, None]


def terms(dims: int) -> list[tuple[int, ...]]:
    """Degrees along each axis, of every term but the constant one."""
    ranges = itertools.product(range(DEGREE + 1), repeat=dims)
    return [degrees for degrees in ranges if 0 < sum(degrees) <= DEGREE]


def field(shape: tuple[int, ...], coefficients: Tensor) -> Tensor:
    """(B, *shape) positive, for coefficients (B, terms)."""
    lines = [
        torch.from_numpy(np.polynomial.legendre.legvander(np.linspace(-1, 1, size), DEGREE))
        for size in shape
    ]
    logarithm = coefficients.new_zeros(len(coefficients), *shape)
    for number, degrees in enumerate(terms(len(shape))):
        term = torch.ones((), dtype=torch.float64)
        for line, degree in zip(lines, degrees, strict=True):
            term = term[..., None] * line[:, degree]
        weight = coefficients[:, number].view(-1, *(1,) * len(shape))
        logarithm += weight * term.to(coefficients)
    return logarithm.exp_()
