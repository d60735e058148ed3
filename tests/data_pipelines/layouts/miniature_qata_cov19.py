"""QaTa-COV19 as on Kaggle: the infected with their masks, and both control groups beside them."""

from pathlib import Path

import numpy as np
from PIL import Image

GROUP_II = "Control_Group/Control_Group_II"


def build(folder: Path) -> Path:
    """60 infected and 66 controls; all kinds of file names, an empty mask, a readme."""
    root = folder / "QaTa-COV19"
    infected = root / "QaTa-COV19-v2"
    draw = np.random.default_rng(19)
    for number in range(30):
        _pair(infected / "Train Set", f"covid_{number}.png", draw, infected=number > 0)
    for number in range(12):
        name = f"sub-S{number // 2:05d}_ses-E{number:05d}_run-1_bp-chest_vp-ap_dx.png"
        _pair(infected / "Train Set", name, draw)
    for day in (0, 5, 9):
        _pair(infected / "Train Set", f"series-1-day{day}-PA.png", draw)
    for number in range(15):
        _pair(infected / "Test Set", f"covid_{100 + number}.png", draw)
    for number in range(30):
        _image(root / "Control_Group/Control_Group_I" / f"normal_{number}.png", draw)
    for number in range(12):
        part = "Test" if number % 4 == 0 else "Train"
        for visit in range(2):
            name = f"{number:08d}_{visit:03d}.png"
            _image(root / GROUP_II / "CHESTXRAY-14" / part / name, draw, alpha=visit == 1)
    for number in range(6):
        bacterial = f"person{number}_bacteria_{number + 40}.jpeg"
        _image(root / GROUP_II / "Pediatric_Bacterial_Pneumonia" / bacterial, draw)
        viral = f"VIRUS-{4000 + number}-0001.jpeg"
        _image(root / GROUP_II / "Pediatric_Viral_Pneumonia" / viral, draw)
    (root / "Control_Group" / "readme.txt").write_text("what the groups are\n")
    return root


def _pair(part: Path, name: str, draw: np.random.Generator, *, infected: bool = True) -> None:
    _image(part / "Images" / name, draw)
    mask = np.zeros((24, 24), np.uint8)
    mask[6:18, 6:18] = 255 * infected
    path = part / "Ground-truths" / f"mask_{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def _image(path: Path, draw: np.random.Generator, *, alpha: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray(draw.integers(0, 256, (24, 24), np.uint8))
    (grey.convert("RGBA") if alpha else grey).save(path)
