"""nnU-Net's and the Decathlon's forms: volumes of a hippocampus in two parts, `dataset.json`.

`write` writes a folder of any of the forms.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (14, 18, 12)
LABELS = {"0": "background", "1": "Anterior", "2": "Posterior"}
#: Voxels count towards the patient's left and front, 1 mm wide and 2 mm thick.
AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])
AFFINE[0, 3] = SHAPE[0] - 1


def build(folder: Path) -> Path:
    """The Decathlon's hippocampus in small: 40 cases and two without labels."""
    return write(folder / "Task04_Hippocampus", cases=40, unlabelled=2)


def write(
    folder: Path,
    *,
    cases: int,
    form: str = "decathlon",
    channels: int = 1,
    labels: Mapping[str, Any] | None = None,
    unlabelled: int = 0,
    tested: int = 0,
) -> Path:
    """`form` is "decathlon", "v1" (a file a channel) or "v2" (the same, another `dataset.json`)."""
    draw = np.random.default_rng(4)
    names = [f"hippocampus_{number:03d}" for number in range(1, cases + 1)]
    extra = [f"hippocampus_{number:03d}" for number in range(301, 301 + unlabelled + tested)]
    for name in names:
        _case(folder, "Tr", name, draw, form, channels, labelled=True)
    for place, name in enumerate(extra):
        _case(folder, "Ts", name, draw, form, channels, labelled=place < tested)
    known = labels or LABELS
    names_of = ["MRI"] if channels == 1 else [f"MRI{channel}" for channel in range(channels)]
    named = {str(channel): kind for channel, kind in enumerate(names_of)}
    described: dict[str, Any] = {"name": "Hippocampus"}
    if form == "v2":
        described |= {"channel_names": named, "numTraining": cases, "file_ending": ".nii.gz"}
        described["labels"] = known if labels else {v: int(k) for k, v in known.items()}
    else:
        pairs = [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names
        ]
        described |= {"modality": named, "labels": known, "training": pairs, "numTraining": cases}
        described |= {"licence": "CC-BY-SA 4.0", "reference": "A university hospital"}
        described["test"] = [f"./imagesTs/{n}.nii.gz" for n in extra]
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def _case(
    folder: Path,
    use: str,
    name: str,
    draw: np.random.Generator,
    form: str,
    channels: int,
    *,
    labelled: bool,
) -> None:
    """A bright ellipsoid whose front half is 1 and whose back half is 2."""
    centre = draw.integers((5, 7, 4), (9, 11, 8))
    x, y, z = (np.indices(SHAPE).T - centre).T
    inside = (x / 4) ** 2 + (y / 6) ** 2 + (z / 3) ** 2 < 1
    labels = np.where(y > 0, 1, 2) * inside
    images = [
        (draw.integers(50, 150, SHAPE) + (200 + 50 * channel) * inside).astype(np.int16)
        for channel in range(channels)
    ]
    place = folder / f"images{use}"
    if form == "decathlon":
        _save(place / f"{name}.nii.gz", images[0] if channels == 1 else np.stack(images, axis=-1))
    else:
        for channel, image in enumerate(images):
            _save(place / f"{name}_{channel:04d}.nii.gz", image)
    if labelled:
        _save(folder / f"labels{use}" / f"{name}.nii.gz", labels.astype(np.uint8))


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
