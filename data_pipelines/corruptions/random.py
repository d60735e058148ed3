"""Random numbers that depend on a sample's seed alone: not on its batch, the order or the device.

A counter-based generator: number i of a seed is a hash of (seed, stream, i), so that a whole batch
is drawn at once. The hash is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, doi:10.1145/2660193),
started for each seed and stream where its own mixer sends them. It is integer arithmetic modulo
2^64, the same to the bit on a CPU and on a GPU; so are `uniform`, and `normal` up to the rounding
of its table.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BITS = 64
#: Draws of 16 bits that a word gives to `normal`.
_QUARTERS = 4
_LEVELS = 1 << 16
#: Above this mean `poisson` uses its expansion, below it the inversion with so many terms that
#: what is beyond them, 2e-8 at most, is less than a step of the 24-bit uniform.
_LARGE_MEAN = 10.0
_TERMS = 33
#: Terms between two looks whether all draws are found; a look costs a GPU its queue.
_LOOK = 4
#: Elements that are drawn together, so that the buffers stay in a core's cache.
_CHUNK = 1 << 16


def _signed(value: int) -> int:
    """The int64 that has the low 64 bits of `value`."""
    value &= (1 << _BITS) - 1
    return value - (1 << _BITS) if value >> (_BITS - 1) else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_STREAM = 0xD1B54A32D192ED03
_MIXERS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def bits(seeds: Tensor, count: int, stream: int = 0) -> Tensor:
    """(B, count) long: 64 random bits each.

    Args:
        seeds: (B,) long, on the device where the numbers are wanted.
        count: Numbers per seed.
        stream: Separates several draws for one sample, such as angle and shift.
    """
    start = _mix(seeds + _signed(stream * _STREAM))
    steps = torch.arange(1, count + 1, device=seeds.device) * _GOLDEN
    return _mix(start[:, None] + steps)


def uniform(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """(B, *shape) float32, uniform on the multiples of 2^-24 in [0, 1)."""
    count = math.prod(shape)
    halves = _split(bits(seeds, -(-count // 2), stream), torch.int32)
    draws = ((halves >> 8) & 0xFFFFFF).float().mul_(2.0**-24)
    return draws[:, :count].reshape(len(seeds), *shape)


def symmetric(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """(B, *shape) float32, uniform in [-1, 1)."""
    return uniform(seeds, shape, stream).mul_(2).sub_(1)


def normal(seeds: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """(B, *shape) float32, N(0, 1) in 65,536 levels of equal probability.

    The levels are the quantiles at their middles, scaled to a variance of exactly 1; the largest
    is 4.3. Looking them up is faster than torch's generator and exact, where log and cosine, and
    so Box and Muller's method, differ between devices.
    """
    count = math.prod(shape)
    quarters = _split(bits(seeds, -(-count // _QUARTERS), stream), torch.int16)
    index = quarters.to(torch.int32).add_(_LEVELS // 2)
    draws = _quantiles(seeds.device).index_select(0, index.reshape(-1))
    return draws.view(index.shape)[:, :count].reshape(len(seeds), *shape)


def poisson(mean: Tensor, seeds: Tensor, stream: int = 0) -> Tensor:
    """(B, ...) float32, Poisson counts with `mean` (B, ...) ≥ 0; uses `stream` and `stream` + 1.

    Inversion of the distribution function up to a mean of 10. Above it, the asymptotic expansion
    of the inverse in the normal deviate w (Giles, Algorithm 955, ACM TOMS 42(1):7, 2016),

        floor(m + √m w + (2 + w²)/6 − (2 w + w³)/(72 √m)),

    whose distribution function is within 3e-4 of Poisson's.
    """
    shape = mean.shape[1:]
    mean = mean.float()
    counts = _invert(mean.clamp(max=_LARGE_MEAN), uniform(seeds, shape, stream))
    if not bool((mean > _LARGE_MEAN).any()):
        return counts
    w = normal(seeds, shape, stream + 1)
    root = mean.clamp(min=_LARGE_MEAN).sqrt()
    square = w * w
    value = mean + root * w + (2 + square) / 6 - w * (2 + square) / (72 * root)
    return torch.where(mean > _LARGE_MEAN, value.floor().clamp(min=0), counts)


def fork(seeds: Tensor, name: str) -> Tensor:
    """(B,) long, non-negative: other seeds, which depend on the seeds and on `name` alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    mixed = _mix(seeds + _signed(int.from_bytes(digest, "big")))
    return mixed & ((1 << (_BITS - 1)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's output function, in place on a tensor that the caller made."""
    for shift, factor in _MIXERS:
        z ^= _shifted(z, shift)
        z *= factor
    z ^= _shifted(z, 31)
    return z


def _shifted(z: Tensor, shift: int) -> Tensor:
    """z >> shift with zeros from the left, where torch's repeats the sign."""
    return (z >> shift).bitwise_and_((1 << (_BITS - shift)) - 1)


def _split(words: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, n) words as (B, k n) smaller integers."""
    if words.numel():
        return words.view(dtype)
    # torch cannot view an empty tensor as another type.
    return words.new_zeros((len(words), words.shape[1] * (8 // dtype.itemsize)), dtype=dtype)


@functools.cache
def _quantiles(device: torch.device) -> Tensor:
    """(65536,) float32, ascending, mean 0 and variance 1."""
    # A tensor made in inference mode could not take part in a later gradient.
    with torch.inference_mode(False):
        middles = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
        levels = torch.special.ndtri(middles)
        return (levels / levels.std(correction=0)).float().to(device)


def _invert(mean: Tensor, draw: Tensor) -> Tensor:
    """The smallest k with P(N ≤ k) > draw; mean at most 10."""
    flat, draws = mean.reshape(-1), draw.reshape(-1)
    counts = torch.zeros_like(flat)
    size = _CHUNK if flat.device.type == "cpu" else max(flat.numel(), 1)
    for m, u, k in zip(flat.split(size), draws.split(size), counts.split(size), strict=True):
        term = torch.exp(-m)
        below = term.clone()
        above = torch.empty_like(m)
        for i in range(1, _TERMS):
            k += torch.ge(u, below, out=above)
            if i % _LOOK == 0 and not bool(above.any()):
                break
            term *= m
            term /= i
            below += term
    return counts.view_as(mean)
