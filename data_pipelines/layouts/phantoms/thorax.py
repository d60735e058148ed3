"""Draws a chest X-ray: opacities of the organs in a unit square, then the detector.

Coordinates run from -1 to 1, x to the viewer's right (the patient's left), y downwards; opacity is
the brightness that a structure adds on an ideal film (0 air, 1 metal). Everything anatomical is
smooth and drawn without reference to the pixel grid, so that a patient looks alike at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float64]

_SIDES = (-1, 1)

#: The least share of the image that an infection covers.
_VISIBLE = 0.004
#: The share of its full strength above which a shadow belongs to the core of an infection.
_CORE = 0.97


@dataclass(frozen=True, kw_only=True)
class Detector:
    """How a site's machine turns opacity into grey values.

    Attributes:
        contrast: Slope around the middle grey.
        noise: Standard deviation at middle grey, on the [0, 1] scale.
        blur: Standard deviation of the point spread, in units of the half image width.
        resolution: Pixels a side that the machine resolves, at most; later scaled to the size.
        exposure: Standard deviation of the brightness between images.
    """

    contrast: float
    noise: float
    blur: float
    resolution: int
    exposure: float


SITES: dict[str, Detector] = {
    "digital": Detector(contrast=1.1, noise=0.02, blur=0.006, resolution=1024, exposure=0.02),
    "computed": Detector(contrast=0.9, noise=0.035, blur=0.016, resolution=1024, exposure=0.04),
    "portable": Detector(contrast=0.7, noise=0.05, blur=0.02, resolution=48, exposure=0.07),
}


@dataclass(frozen=True, kw_only=True)
class PhantomPatient:
    """Who is drawn; lengths in units of the half image width, angles in radians."""

    key: str
    site: str
    sex: str
    age: float
    lung_width: float
    lung_height: float
    heart: float
    rib_pitch: float
    tilt: float
    fat: float


@dataclass(frozen=True, kw_only=True)
class Infection:
    """One shadow: where (relative to its lung, -1 to 1), how large, how dense, how ragged."""

    side: int
    across: float
    along: float
    radius: float
    elongation: float
    angle: float
    density: float
    ragged: float


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An X-ray and what is where in it; masks are (size, size) uint8, 0 or 1.

    Attributes:
        image: (size, size) uint8.
        infections: Where each shadow has more than half its strength, inside its lung.
        cores: Of each infection, where the shadow is nearly at full strength.
        lungs: Both lungs, infections included.
    """

    image: NDArray[np.uint8]
    infections: tuple[NDArray[np.uint8], ...]
    cores: tuple[NDArray[np.uint8], ...]
    lungs: NDArray[np.uint8]


def draw_patient(key: str, draw: Generator) -> PhantomPatient:
    """Anatomy of a patient: women have smaller lungs and breast shadows, hearts grow with age."""
    site = str(draw.choice(list(SITES), p=(0.45, 0.3, 0.25)))
    sex = str(draw.choice(("female", "male")))
    age = float(np.clip(draw.normal(58, 17), 18, 95).round())
    male = sex == "male"
    return PhantomPatient(
        key=key,
        site=site,
        sex=sex,
        age=age,
        lung_width=draw.normal(0.335 if male else 0.31, 0.015),
        lung_height=draw.normal(0.68 if male else 0.63, 0.03),
        heart=draw.normal(0.27, 0.02) + 0.0012 * (age - 50) + 0.04 * (site == "portable"),
        rib_pitch=draw.normal(0.165, 0.008),
        tilt=draw.normal(0, 0.03),
        fat=abs(draw.normal(0.05 if male else 0.12, 0.04)),
    )


def draw_infections(draw: Generator) -> list[Infection]:
    """None in about a sixth of the images, else one to three; more often low and at the side."""
    count = int(draw.choice(4, p=(0.16, 0.38, 0.29, 0.17)))
    return [
        Infection(
            side=int(draw.choice(_SIDES)),
            across=draw.uniform(-0.45, 0.75),
            along=np.clip(draw.normal(0.2, 0.4), -0.75, 0.8),
            radius=float(np.clip(draw.lognormal(np.log(0.23), 0.35), 0.12, 0.42)),
            elongation=draw.uniform(1, 1.6),
            angle=draw.uniform(0, np.pi),
            density=draw.uniform(0.16, 0.38),
            ragged=draw.uniform(0.2, 0.55),
        )
        for _ in range(count)
    ]


def render(
    size: int, patient: PhantomPatient, infections: list[Infection], draw: Generator
) -> Drawing:
    """The X-ray of a patient.

    An infection that hides behind the heart or the diaphragm, but for less than `_VISIBLE`, is not
    drawn.
    """
    x, y = _grid(size, patient, draw)
    lungs = {side: _lung(x, y, side, patient) for side in _SIDES}
    air = lungs[-1] + lungs[1]
    film = _tissue(x, y, patient) - 0.36 * air
    film += _vessels(x, y, patient, draw) * air
    film += _bones(x, y, patient)
    masks, cores = [], []
    shadows = np.zeros_like(film)
    for infection in infections:
        shadow = _shadow(x, y, infection, patient, draw)
        texture = 1 + 0.25 * _clouds(size, 12, draw)
        mask = (shadow > 0.5) & (lungs[infection.side] > 0.5)
        if mask.mean() < _VISIBLE:
            continue
        masks.append(mask.astype(np.uint8))
        cores.append((mask & (shadow > _CORE)).astype(np.uint8))
        shadows = np.maximum(shadows, infection.density * shadow * texture * air)
    film += shadows
    return Drawing(
        image=_expose(film, SITES[patient.site], draw),
        infections=tuple(masks),
        cores=tuple(cores),
        lungs=((lungs[-1] > 0.5) | (lungs[1] > 0.5)).astype(np.uint8),
    )


def _grid(size: int, patient: PhantomPatient, draw: Generator) -> tuple[Field, Field]:
    """Pixel centres in the patient's coordinates: no two images are placed quite alike."""
    centres = (np.arange(size) + 0.5) * 2 / size - 1
    x, y = np.meshgrid(centres, centres)
    x, y = x - draw.normal(0, 0.025), y - draw.normal(0, 0.03)
    angle, zoom = patient.tilt + draw.normal(0, 0.015), draw.normal(1, 0.025)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    return cos * x + sin * y, cos * y - sin * x


def _step(distance: Field, softness: float) -> Field:
    """A soft edge: 0 far below zero, 1 far above."""
    return 0.5 + 0.5 * np.tanh(distance / softness)


def _bump(distance: Field, width: float) -> Field:
    return np.exp(-((distance / width) ** 2))


def _lung_centre(side: int, patient: PhantomPatient) -> tuple[float, float]:
    return side * (0.11 + patient.lung_width), -0.08


def _lung(x: Field, y: Field, side: int, patient: PhantomPatient) -> Field:
    """1 inside a lung: narrow at the apex, domed below, hollowed by the heart on its side."""
    centre, middle = _lung_centre(side, patient)
    along = (y - middle) / patient.lung_height
    narrowing = 0.72 + 0.28 * np.clip((along + 1) / 1.1, 0, 1)
    across = (x - centre + side * 0.06 * (1 - narrowing) / 0.28) / (patient.lung_width * narrowing)
    inside = _step(1 - np.abs(across) ** 2.4 - np.abs(along) ** 4, 0.12)
    dome = 0.5 + 0.1 * (side > 0) - 0.17 * _bump(x - centre + side * 0.06, 0.28)
    return inside * _step(dome - y, 0.02) * (1 - 0.97 * _heart(x, y, patient))


def _heart(x: Field, y: Field, patient: PhantomPatient) -> Field:
    u, v = x - 0.09, y - 0.29
    u, v = 0.88 * u + 0.47 * v, 0.88 * v - 0.47 * u
    return _step(1 - (u / (patient.heart * 1.2)) ** 2 - (v / (patient.heart * 0.9)) ** 2, 0.25)


def _tissue(x: Field, y: Field, patient: PhantomPatient) -> Field:
    """Body wall, mediastinum, heart, abdomen, breasts; air outside the body."""
    shoulders = y + 1.02 - 0.75 * np.clip(np.abs(x) - 0.28, 0, None) ** 1.3
    body = _step(1.04 - np.abs(x) ** 3, 0.05) * _step(shoulders, 0.04)
    film = 0.5 + 0.5 * patient.fat + 0.1 * _bump(x, 0.13)
    film -= 0.07 * _bump(x + 0.005, 0.05) * _step(-0.1 - y, 0.1)  # trachea
    # Heart and abdomen are equally dense: below the diaphragm the heart has no outline.
    film += 0.17 * np.maximum(_heart(x, y, patient), _step(y - 0.5, 0.08))
    film += 0.08 * _bump(np.hypot(x - 0.13, y + 0.3), 0.11)  # aortic knob
    if patient.sex == "female":
        for side in _SIDES:
            below = np.hypot((x - side * 0.48) / 1.1, y - 0.25)
            film += 0.6 * patient.fat * _step(0.34 - below, 0.05)
    return film * body


def _bones(x: Field, y: Field, patient: PhantomPatient) -> Field:
    """Spine, nine ribs (their back parts falling, their front parts rising) and clavicles."""
    spine = _bump(x, 0.075) * (0.05 + 0.02 * np.cos(2 * np.pi * y / 0.2))
    chest = _step(0.93 - np.abs(x), 0.04) * _step(np.abs(x) - 0.1, 0.04) * _step(0.72 - y, 0.08)
    bend = np.abs(x) / 0.8
    ribs = np.zeros_like(x)
    for index in range(9):
        top = -0.88 + patient.rib_pitch * index
        back = y - top + 0.22 * bend - 0.42 * bend**2
        ribs += 0.085 * _edged(back, 0.035)
        front = y - top - 0.05 - 0.36 * (1 - bend)
        ribs += 0.05 * _edged(front, 0.04) * _step(np.abs(x) - 0.33, 0.06)
    collar = np.zeros_like(x)
    for side in _SIDES:
        line = y + 0.66 + 0.16 * (side * x - 0.1) - 0.05 * np.sin(4 * side * x)
        collar += (
            0.1 * _edged(line, 0.04) * _step(side * x - 0.1, 0.03) * _step(0.75 - side * x, 0.05)
        )
    return spine + ribs * chest + collar


def _edged(distance: Field, half_width: float) -> Field:
    """A bone across: its cortex is denser than its marrow."""
    inside = _step(half_width - np.abs(distance), 0.012)
    return inside * (0.75 + 0.25 * (np.abs(distance) / half_width).clip(0, 1) ** 2)


def _vessels(x: Field, y: Field, patient: PhantomPatient, draw: Generator) -> Field:
    """Hilar shadows and branching texture: they resemble an infection."""
    film = 0.035 * _clouds(len(x), 6, draw) + 0.02 * _clouds(len(x), 16, draw)
    film += 0.0006 * (patient.age - 50)
    for side in _SIDES:
        reach = np.hypot((x - side * 0.2) / 0.8, y + 0.02 + 0.04 * side)
        film += draw.uniform(0.1, 0.17) * _bump(reach, draw.uniform(0.13, 0.19))
        angle = np.arctan2(y + 0.02, side * (x - side * 0.12))
        phase = draw.uniform(0, 2 * np.pi)
        branches = np.clip(np.sin(7 * angle + phase + 3 * reach), 0, 1) ** 6
        film += 0.08 * branches * np.exp(-reach / 0.28)
    return film


def _shadow(
    x: Field, y: Field, infection: Infection, patient: PhantomPatient, draw: Generator
) -> Field:
    """0 to 1: an ellipse whose edge is soft and irregular."""
    centre, middle = _lung_centre(infection.side, patient)
    u = x - centre - infection.side * infection.across * patient.lung_width
    v = y - middle - infection.along * patient.lung_height
    cos, sin = np.cos(infection.angle), np.sin(infection.angle)
    u, v = cos * u + sin * v, (cos * v - sin * u) * infection.elongation
    edge = 1 - np.hypot(u, v) / infection.radius
    return _step(edge + infection.ragged * 0.6 * _clouds(len(x), 9, draw), 0.22)


def _clouds(size: int, cells: int, draw: Generator) -> Field:
    """Smooth noise of unit variance, `cells` across the image whatever its size."""
    coarse = draw.standard_normal((cells + 3, cells + 3))
    places = 1 + (np.arange(size) + 0.5) / size * cells
    smooth = ndimage.map_coordinates(
        coarse, np.meshgrid(places, places, indexing="ij"), order=3, mode="nearest"
    )
    return smooth / 0.75


def _expose(film: Field, detector: Detector, draw: Generator) -> NDArray[np.uint8]:
    """Point spread, gain, quantum noise (stronger where little light arrives), resolution."""
    size = len(film)
    film = ndimage.gaussian_filter(film, detector.blur * size / 2, mode="nearest")
    grey = 0.45 + detector.contrast * (film - 0.45) + draw.normal(0, detector.exposure)
    if detector.resolution < size:
        scale = size / detector.resolution
        grey = ndimage.gaussian_filter(grey, 0.5 * scale, mode="nearest")
    noise = draw.standard_normal(film.shape)
    grey += detector.noise * np.sqrt(0.4 + 1.2 * grey.clip(0, 1)) * noise
    return (grey.clip(0, 1) * 255).round().astype(np.uint8)
