"""What a corruption or a method needs of the data. Free of torch, as studies are checked by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trustsweep.data_pipelines.schema import Manifest


@dataclass(frozen=True)
class Needs:
    """A need, in the words of a message, and whether the data of a manifest meet it."""

    text: str
    met: Callable[[Manifest], bool]


def _images(manifest: Manifest) -> bool:
    return bool(manifest.image_shape or manifest.more_images)


def _records(manifest: Manifest) -> bool:
    return bool(manifest.series or manifest.tabular)


def _numbers(manifest: Manifest) -> bool:
    # A table of categories alone has none.
    return any(not feature.vocabulary for feature in (*manifest.series, *manifest.tabular))


IMAGES = Needs("images", _images)
RECORDS = Needs("series or tables", _records)
NUMBERS = Needs("numbers in series or tables", _numbers)
ANYTHING = Needs("images, series or tables", lambda m: _images(m) or _records(m))
MODALITIES = Needs("several modalities", lambda m: len(m.modalities) > 1)
