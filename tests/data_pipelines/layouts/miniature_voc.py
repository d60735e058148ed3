"""A Pascal VOC development kit of one year: annotations, JPEG images, lists of names."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("person", "car", "dog", "bottle")
WIDTH, HEIGHT = 40, 30


def build(folder: Path) -> Path:
    """60 images listed and one that is in no list; difficult objects, parts, fractions."""
    root = folder / "VOCdevkit" / "VOC2007"
    for place in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / place).mkdir(parents=True)
    draw = np.random.default_rng(2007)
    names = [f"{number:06d}" for number in range(1, 62)]
    for name in names:
        pixels = draw.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        objects = "".join(_object(draw) for _ in range(draw.integers(1, 5)))
        (root / "Annotations" / f"{name}.xml").write_text(_annotation(name, objects))
    lists = {"train": names[:30], "val": names[30:45], "test": names[45:60]}
    lists["trainval"] = names[:45]
    for use, members in lists.items():
        (root / "ImageSets" / "Main" / f"{use}.txt").write_text("\n".join(members) + "\n")
    marks = "".join(f"{name}  1\n" for name in names[:30])
    (root / "ImageSets" / "Main" / "person_train.txt").write_text(marks)
    return folder / "VOCdevkit"


def _annotation(name: str, objects: str) -> str:
    return (
        f"<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>"
        f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{objects}</annotation>"
    )


def _object(draw: np.random.Generator) -> str:
    name = draw.choice(CLASSES)
    x0, y0 = draw.integers(1, 15, 2)
    x1, y1 = x0 + draw.integers(0, 20), y0 + draw.integers(0, 12)
    box = _box(x0, y0, x1, y1)
    part = f"<part><name>head</name>{box}</part>" if name == "person" else ""
    difficult = int(draw.random() < 0.2)
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult>{box}{part}</object>"
    )


def _box(*corners: int) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    return "<bndbox>" + "".join(f"<{side}>{value}</{side}>" for side, value in sides) + "</bndbox>"
