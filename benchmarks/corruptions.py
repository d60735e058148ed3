"""Microseconds per sample of each corruption at severity 3: batched, one by one, and a peer's.

64 generated images of 128 x 128 with one channel, or 64 records with series and a table. "Batched"
is one call for the batch, "one by one" the same code image by image, and the peer is what a library
offers for one image: Pillow, scipy, numpy or MONAI, each in its own format and without conversion.
"generator" is what noise costs to draw, beside torch's with a generator for each image.

    python benchmarks/corruptions.py [--threads 1] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import KSpaceSpikeNoise, RandBiasField
from PIL import Image, ImageEnhance
from scipy import ndimage
from torch.nn import functional

from trustsweep.data_pipelines.corruptions import CORRUPTIONS, random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.defocus_blur import disk
from trustsweep.data_pipelines.corruptions.motion_blur import half_gaussian
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.zoom_blur import zoom_factors
from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName

COUNT, SIZE, STEPS = 64, 128, 48
SEVERITY = 3

FEATURES = tuple(Feature(name=f"f{i}", std=2.0) for i in range(20))
MANIFEST = Manifest(
    name="generated",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(1, SIZE, SIZE),
    image_scale=255,
    classes=("no", "yes"),
    mean=(0.5,),
    std=(0.2,),
    split_counts={"train": COUNT},
    columns={},
    fingerprint="0",
    series=FEATURES,
    series_hours=1.0,
    tabular=FEATURES,
    modalities=(
        Modality(name="image", kind=Kind.IMAGE, column="image"),
        Modality(name="vitals", kind=Kind.SERIES, column="series"),
        Modality(name="record", kind=Kind.TABULAR, column="tabular"),
    ),
)

#: What a peer does to one image, (128, 128) float32 or uint8 as it likes.
Peer = Callable[[np.ndarray], Any]


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """The least of `repeats` calls, after one that fills caches; others are disturbed ones."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def samples() -> Batch:
    """Smooth images with some noise, and records of which a third is missing."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand((COUNT, 1, 16, 16), generator=draw)
    smooth = functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic")
    noise = torch.randn(smooth.shape, generator=draw)
    shape = (COUNT, STEPS, len(FEATURES))
    mask = (torch.rand(shape, generator=draw) < 2 / 3).float()
    return Batch(
        sample_id=tuple(f"s{i}" for i in range(COUNT)),
        image=(smooth + 0.02 * noise).clamp(0, 1),
        series=torch.rand(shape, generator=draw).masked_fill(mask == 0, torch.nan),
        series_mask=mask,
        series_delta=torch.ones(shape),
        tabular=torch.rand((COUNT, len(FEATURES)), generator=draw),
    )


def peers() -> dict[str, tuple[str, Peer]]:
    """Corruption to the peer's name and its work on one image."""
    draw = np.random.default_rng(0)

    def parameter(name: str) -> Any:
        return CORRUPTIONS[name].severities[SEVERITY - 1]

    def enhanced(kind: Any, name: str) -> Peer:
        return lambda p: kind(Image.fromarray(_bytes(p))).enhance(parameter(name))

    def jpeg(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(_bytes(pixels)).save(buffer, "JPEG", quality=parameter("jpeg"))
        return np.asarray(Image.open(buffer))

    def pixelate(pixels: np.ndarray) -> Image.Image:
        small = int(SIZE * parameter("pixelate"))
        picture = Image.fromarray(pixels).resize((small, small), Image.Resampling.BOX)
        return picture.resize((SIZE, SIZE), Image.Resampling.BOX)

    def zoom(pixels: np.ndarray) -> np.ndarray:
        factors = zoom_factors(*parameter("zoom-blur"))
        middle = np.full(2, (SIZE - 1) / 2)
        enlarged = [
            ndimage.affine_transform(
                pixels, np.eye(2) / f, offset=middle * (1 - 1 / f), order=1, mode="nearest"
            )
            for f in factors
        ]
        return (pixels + np.sum(enlarged, axis=0)) / (len(factors) + 1)

    def ghosting(pixels: np.ndarray) -> np.ndarray:
        spectrum = np.fft.fft2(pixels)
        spectrum[8:-8:8] *= 1 - parameter("ghosting")
        return np.fft.ifft2(spectrum).real

    def motion(pixels: np.ndarray) -> np.ndarray:
        copy = ndimage.rotate(pixels, parameter("mri-motion"), reshape=False, order=1)
        lines = np.where(np.arange(SIZE)[:, None] < 40, np.fft.fft2(copy), np.fft.fft2(pixels))
        return np.abs(np.fft.ifft2(lines))

    weights = np.array(half_gaussian(*parameter("motion-blur")))
    line = np.zeros((2 * len(weights) - 1,) * 2)
    line[len(weights) - 1, len(weights) - 1 :] = weights
    kernel = disk(*parameter("defocus-blur")).numpy()
    taps = parameter("gaussian-blur")
    bias, spike = RandBiasField(prob=1.0), KSpaceSpikeNoise(loc=(80, 90), k_intensity=10)

    def blur(pixels: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(pixels, 0.15 * taps + 0.35, radius=int(taps) // 2)

    return {
        "gaussian-noise": (
            "numpy",
            lambda p: p + parameter("gaussian-noise") * draw.standard_normal(p.shape, np.float32),
        ),
        "speckle-noise": (
            "numpy",
            lambda p: (
                p + parameter("speckle-noise") * p * draw.standard_normal(p.shape, np.float32)
            ),
        ),
        "impulse-noise": (
            "numpy",
            lambda p: np.where(draw.random(p.shape) < parameter("impulse-noise"), 1, p),
        ),
        "shot-noise": ("numpy", lambda p: draw.poisson(p * parameter("shot-noise"))),
        "gaussian-blur": ("scipy", blur),
        "defocus-blur": ("scipy", lambda p: ndimage.convolve(p, kernel)),
        "motion-blur": ("scipy", lambda p: ndimage.correlate(p, line)),
        "zoom-blur": ("scipy", zoom),
        "pixelate": ("Pillow", pixelate),
        "jpeg": ("Pillow", jpeg),
        "brightness-up": ("Pillow", enhanced(ImageEnhance.Brightness, "brightness-up")),
        "contrast-down": ("Pillow", enhanced(ImageEnhance.Contrast, "contrast-down")),
        "gamma-up": ("numpy", lambda p: p ** parameter("gamma-up")),
        "bias-field": ("MONAI", lambda p: bias(p[None])),
        "spike": ("MONAI", lambda p: spike(p[None])),
        "ghosting": ("numpy", ghosting),
        "mri-motion": ("scipy", motion),
    }


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 255).astype(np.uint8)


def measure(name: str, batch: Batch, peer: tuple[str, Peer] | None, repeats: int) -> dict[str, Any]:
    """Microseconds per sample of one corruption."""
    corruption = CORRUPTIONS[name]()
    parameter = corruption.severities[SEVERITY - 1]
    seeds = draw_seeds(batch.sample_id)
    alone = [(batch.select([row]), seeds[row : row + 1]) for row in range(COUNT)]
    row = {
        "corruption": name,
        "batched_us": seconds(lambda: corruption(batch, parameter, seeds, MANIFEST), repeats),
        "one_by_one_us": seconds(
            lambda: [corruption(part, parameter, seed, MANIFEST) for part, seed in alone], repeats
        ),
    }
    if peer is not None:
        pixels = batch.image[:, 0].numpy()
        row["peer_us"] = seconds(lambda: [peer[1](one) for one in pixels], repeats)
    figures = {k: v * 1e6 / COUNT if k != "corruption" else v for k, v in row.items()}
    return {**figures, "peer": peer[0] if peer else None}


def generator(repeats: int) -> dict[str, Any]:
    """The same of drawing as many normal numbers as an image has pixels."""
    seeds = draw_seeds([f"s{i}" for i in range(COUNT)])
    shape = (1, SIZE, SIZE)

    def torchs() -> torch.Tensor:
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds.tolist()]
        )

    figures = {
        "batched_us": seconds(lambda: random.normal(seeds, shape), repeats),
        "one_by_one_us": seconds(lambda: [random.normal(s[None], shape) for s in seeds], repeats),
        "peer_us": seconds(torchs, repeats),
    }
    micro = {k: v * 1e6 / COUNT for k, v in figures.items()}
    return {"corruption": "(generator)", **micro, "peer": "torch.randn"}


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'corruption':<16}{'batched':>9}{'one by one':>12}{'peer':>9}"]
    for row in rows:
        peer = f"{row['peer_us']:>9.0f}  {row['peer']}" if row["peer"] else f"{'-':>9}"
        lines.append(
            f"{row['corruption']:<16}{row['batched_us']:>9.0f}{row['one_by_one_us']:>12.0f}{peer}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="calls; the fastest is given")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the peers use one")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="each corruption timed once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = 1
    torch.set_num_threads(arguments.threads)
    batch, known = samples(), peers()
    rows = [generator(arguments.repeats)]
    for name, implementation in CORRUPTIONS.items():
        # Images alone for what changes images, records alone for what does not.
        touches_images = issubclass(implementation, ImageCorruption)
        part = Batch(sample_id=batch.sample_id, image=batch.image) if touches_images else batch
        rows.append(measure(name, part, known.get(name), arguments.repeats))
    print("microseconds per sample (64 samples, 128 x 128 pixels, severity 3)")
    print(table(rows))
    if arguments.json:
        settings = {"threads": arguments.threads, "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
