"""Which image belongs to which ICU stay, by patient and time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from trustsweep.data_pipelines.layouts.mimic.tables import IcuStay, Image

HOUR = 3600
#: An image from before the stay still shows the patient who is admitted.
BEFORE = 24 * HOUR


@dataclass(frozen=True)
class Window:
    """[first, last) in seconds since 1970."""

    first: int
    last: int


def stay_window(stay: IcuStay, hours: int) -> Window:
    """The stay's first `hours`, or all of it where it is shorter."""
    return Window(stay.start, min(stay.start + hours * HOUR, stay.end))


def images_of(stay: IcuStay, hours: int, images: Sequence[Image]) -> Sequence[Image]:
    """Those (in the order of time, of the stay's patient) from a day before the stay until the end
    of its window."""
    times = [image.second for image in images]
    first = bisect_left(times, stay.start - BEFORE)
    return images[first : bisect_left(times, stay_window(stay, hours).last)]


def covering(image: Image, stays: Sequence[IcuStay]) -> IcuStay | None:
    """The stay (of the image's patient, in the order of time) during which it was taken."""
    place = bisect_right([stay.start for stay in stays], image.second)
    stay = stays[place - 1] if place else None
    return stay if stay is not None and image.second <= stay.end else None


def before(image: Image, stay: IcuStay, hours: int) -> Window:
    """The `hours` before the image, as far as the stay covers them."""
    return Window(max(stay.start, image.second - hours * HOUR), image.second)
