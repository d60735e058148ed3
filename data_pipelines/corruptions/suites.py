"""Named suites: which corruptions a modality meets, and the five parameters of each.

`chest` to `tissue` are the severities of MedMNIST-C (Di Salvo et al., arXiv 2406.17536) for images
of 224 pixels. Left out are its black-corner, characters, saturate, stain deposit and bubble: they
paint objects into colour images of the skin and of slides, or shift colours, and their published
lists are not all ordered by severity. `mri` and `clinical` are ours, as there is no published one.

Free of torch, so that a study is checked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import Table, nearest

#: The parameter of a severity; its meaning is in the corruption's own docstring.
Parameter: TypeAlias = float | tuple[float, float]
Five: TypeAlias = tuple[Parameter, Parameter, Parameter, Parameter, Parameter]
Suite: TypeAlias = Mapping[str, Five]

DEFAULT_SUITE = "chest"

_UP: Five = (1.1, 1.2, 1.3, 1.4, 1.5)
_DOWN: Five = (0.9, 0.8, 0.7, 0.6, 0.5)
_WIDE_UP: Five = (1.1, 1.2, 1.3, 1.4, 1.6)
_WIDE_DOWN: Five = (0.9, 0.8, 0.7, 0.6, 0.4)
_COARSE: Five = (0.30, 0.25, 0.20, 0.15, 0.10)
_JPEG: Five = (50, 30, 15, 10, 7)
_WEAK_SPECKLE: Five = (0.10, 0.15, 0.20, 0.25, 0.30)
_DEFOCUS: Five = ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5))

_CHEST: dict[str, Five] = {
    "pixelate": _COARSE,
    "jpeg": _JPEG,
    "gaussian-noise": (0.04, 0.08, 0.12, 0.18, 0.26),
    "speckle-noise": (0.05, 0.15, 0.20, 0.35, 0.45),
    "impulse-noise": (0.01, 0.03, 0.06, 0.09, 0.17),
    "shot-noise": (60, 25, 18, 10, 5),
    "gaussian-blur": (3, 5, 7, 9, 11),
    "brightness-up": _UP,
    "brightness-down": _DOWN,
    "contrast-up": _WIDE_UP,
    "contrast-down": _WIDE_DOWN,
    "gamma-up": _WIDE_UP,
    "gamma-down": _WIDE_DOWN,
}

_SUITES: dict[str, Suite] = {
    "chest": _CHEST,
    "pneumonia": {
        **_CHEST,
        "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),
        "gaussian-noise": (0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle-noise": (0.05, 0.07, 0.10, 0.15, 0.20),
        "impulse-noise": (0.005, 0.01, 0.013, 0.017, 0.02),
        "shot-noise": (300, 200, 150, 100, 80),
    },
    "organ": {
        "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35),
        "jpeg": _JPEG,
        "gaussian-noise": (0.04, 0.08, 0.12, 0.16, 0.20),
        "speckle-noise": (0.05, 0.10, 0.20, 0.30, 0.40),
        "impulse-noise": (0.01, 0.02, 0.03, 0.05, 0.08),
        "shot-noise": (200, 100, 50, 25, 15),
        "gaussian-blur": (11, 13, 15, 17, 21),
        "brightness-up": (1.2, 1.3, 1.4, 1.5, 1.6),
        "brightness-down": (0.80, 0.75, 0.70, 0.65, 0.60),
        "contrast-up": (1.3, 1.4, 1.6, 1.7, 1.8),
        "contrast-down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "gamma-up": (1.3, 1.4, 1.6, 1.8, 2.0),
        "gamma-down": _WIDE_DOWN,
    },
    "oct": {
        "pixelate": _COARSE,
        "jpeg": (30, 15, 10, 7, 5),
        "speckle-noise": (0.15, 0.30, 0.40, 0.50, 0.60),
        "defocus-blur": ((0.5, 0.6), (1, 0.5), (1.5, 0.1), (2, 0.5), (2.5, 0.1)),
        "motion-blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "contrast-down": (0.6, 0.4, 0.3, 0.2, 0.15),
    },
    "breast": {
        "pixelate": _COARSE,
        "jpeg": _JPEG,
        "speckle-noise": _WEAK_SPECKLE,
        "motion-blur": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)),
        "brightness-up": (1.4, 1.5, 1.6, 1.8, 2.0),
        "brightness-down": (0.55, 0.50, 0.45, 0.40, 0.30),
        "contrast-down": _WIDE_DOWN,
    },
    "retina": {
        "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35),
        "jpeg": (30, 25, 20, 10, 5),
        "gaussian-noise": (0.04, 0.08, 0.12, 0.16, 0.20),
        "speckle-noise": _WEAK_SPECKLE,
        "defocus-blur": _DEFOCUS,
        "motion-blur": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "brightness-down": _DOWN,
        "contrast-down": _WIDE_DOWN,
    },
    "derma": {
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
        "jpeg": (30, 20, 15, 10, 7),
        "gaussian-noise": _CHEST["gaussian-noise"],
        "speckle-noise": _CHEST["speckle-noise"],
        "impulse-noise": _CHEST["impulse-noise"],
        "shot-noise": _CHEST["shot-noise"],
        "defocus-blur": _DEFOCUS,
        "motion-blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom-blur": ((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.25, 0.02), (1.30, 0.03)),
        "brightness-up": _UP,
        "brightness-down": _DOWN,
        "contrast-up": _WIDE_UP,
        "contrast-down": (0.8, 0.7, 0.6, 0.5, 0.4),
    },
    "path": {
        "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25),
        "jpeg": _JPEG,
        "defocus-blur": ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)),
        "motion-blur": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)),
        "brightness-up": (1.1, 1.15, 1.2, 1.22, 1.25),
        "brightness-down": (0.85, 0.80, 0.75, 0.72, 0.70),
        "contrast-up": _WIDE_UP,
        "contrast-down": (0.8, 0.7, 0.6, 0.55, 0.5),
    },
    "blood": {
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg": _JPEG,
        "defocus-blur": ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        "motion-blur": ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)),
        "brightness-up": (1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness-down": _DOWN,
        "contrast-up": (1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast-down": _DOWN,
    },
    "tissue": {
        "pixelate": (0.40, 0.30, 0.20, 0.15, 0.10),
        "jpeg": (25, 20, 15, 10, 7),
        "impulse-noise": (0.01, 0.015, 0.02, 0.025, 0.03),
        "gaussian-blur": (13, 15, 17, 21, 25),
        "brightness-up": (1.3, 1.4, 1.5, 1.6, 1.7),
        "brightness-down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "contrast-up": _WIDE_UP,
        "contrast-down": _WIDE_DOWN,
    },
    # From hardly visible to what a radiologist would repeat; see each corruption for the unit.
    "mri": {
        "bias-field": (0.1, 0.2, 0.3, 0.4, 0.5),
        "ghosting": (0.2, 0.4, 0.6, 0.8, 1.0),
        "spike": (0.25, 0.5, 1.0, 1.5, 2.0),
        "mri-motion": (1, 2, 4, 6, 10),
        # Half of chest: MRI is mostly dark, where the same noise shows more.
        "gaussian-noise": (0.02, 0.04, 0.06, 0.09, 0.13),
        "gaussian-blur": _CHEST["gaussian-blur"],
        "contrast-up": _WIDE_UP,
        "contrast-down": _WIDE_DOWN,
        "gamma-up": _WIDE_UP,
        "gamma-down": _WIDE_DOWN,
    },
    # 0.3 is the share that the training of multi-modal models drops most often.
    "clinical": {
        "modality-drop": (0.1, 0.2, 0.3, 0.5, 0.7),
        "feature-mask": (0.1, 0.2, 0.3, 0.5, 0.7),
        "value-noise": (0.1, 0.2, 0.3, 0.5, 1.0),
        "mixed-quality": (0.1, 0.3, 0.5, 0.7, 1.0),
    },
}


class SuiteTable(Table[Suite]):
    """Suites by name."""

    def register(self, name: str, value: Suite) -> None:
        """Add a suite, from a plug-in file.

        Raises `UserError` for a name that is taken, and for a corruption without a parameter for
        each severity.
        """
        for corruption, severities in value.items():
            if len(severities) != len(_UP):
                raise UserError(
                    f"suite {name!r}: {corruption} has {len(severities)} parameters. Give it "
                    f"{len(_UP)}, one for each severity."
                )
        super().register(name, value)


SUITES = SuiteTable("suite", _SUITES, group="trustsweep.suites")


def suite(name: str) -> Suite:
    """The suite called `name`. Raises `UserError` for an unknown one, naming the nearest."""
    if name not in SUITES:
        known = sorted(SUITES)
        raise UserError(f"unknown suite {name!r}{nearest(name, known)} Known: {', '.join(known)}.")
    return SUITES[name]


def parameters(suite_name: str, corruption: str) -> Five:
    """The parameters at severity 1 to 5: the suite's, or the corruption's own if it lists none.

    Raises `UserError` for an unknown suite or corruption, naming the nearest.
    """
    from trustsweep.data_pipelines.corruptions import CORRUPTIONS

    listed = suite(suite_name)
    if corruption in listed:
        return listed[corruption]
    severities: Five = CORRUPTIONS[corruption].severities
    return severities
