"""Pascal VOC: boxes, classes, difficult objects and lists, on real blood cells and in small."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.preprocess.rectangles import BEYOND
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split, TaskName

FIRST = "000001"
SIZE = 20


def _layout(folder: Path | None, size: int = SIZE, **options):
    return LAYOUTS["voc"].create(folder, size=size, seed=0, options=options)


def _samples(folder: Path, size: int = SIZE, **options) -> dict[str, Sample]:
    """By the name of the image."""
    layout = _layout(folder, size, **options)
    return {s.source.stem: s for case in layout.cases() for s in layout.load(case)}


def _refusals(folder: Path) -> list[BadFile]:
    return [p for p in _layout(folder).read() if isinstance(p, BadFile)]


@pytest.fixture
def kit(miniature, tmp_path) -> Path:
    """VOCdevkit/VOC2007, to be changed."""
    return Path(shutil.copytree(miniature("voc"), tmp_path / "VOCdevkit")) / "VOC2007"


def _object(name: str, box: tuple[object, ...], difficult: object = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def _annotate(kit: Path, *objects: str, width: int = 40, height: int = 30) -> Path:
    """Replace the first annotation."""
    path = kit / "Annotations" / f"{FIRST}.xml"
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    path.write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return path


def _objects(path: Path) -> list[tuple[str, list[int]]]:
    """Names and corners, found without a parser."""
    found = []
    for text in re.findall(r"<object>.*?</object>", path.read_text(), re.DOTALL):
        name = re.search(r"<name>(.*?)</name>", text)[1]
        corners = [int(re.search(rf"<{side}>(\d+)</", text)[1]) for side in CORNERS]
        found.append((name, corners))
    return found


CORNERS = ("xmin", "ymin", "xmax", "ymax")


def test_real_boxes_and_labels_are_the_annotations(real_data):
    root = real_data / "BCCD_Dataset" / "BCCD"
    samples = _samples(root, size=96)
    layout = _layout(root)
    assert layout.classes == layout.box_classes == ("Platelets", "RBC", "WBC")
    assert len(samples) == 120
    total = 0
    for name, sample in samples.items():
        objects = _objects(root / "Annotations" / f"{name}.xml")
        present = {layout.classes[i] for i in np.flatnonzero(sample.label)}
        assert present == {kind for kind, _ in objects}
        wanted = [[x0 - 1, y0 - 1, x1, y1] for _, (x0, y0, x1, y1) in objects]
        scale = np.array([96 / 640, 96 / 480] * 2)
        assert np.allclose(sample.boxes.xyxy, np.array(wanted) * scale, atol=1e-4)
        assert [layout.classes[c] for c in sample.boxes.classes] == [kind for kind, _ in objects]
        total += len(objects)
    assert total == 1833


def test_real_lists_are_kept(real_data, tmp_path):
    report = prepare(real_data / "BCCD_Dataset", "voc", tmp_path / "out", size=24)
    assert report.manifest.split_counts == {"train": 80, "val": 20, "test": 20}
    assert report.manifest.image_shape == (3, 24, 24)
    assert any("no patients" in warning for warning in report.warnings)


def test_a_box_covers_the_pixels_that_it_names(kit):
    """VOC's (3, 5, 12, 9) is columns 3 to 12 and rows 5 to 9, counted from 1, both included."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[4:9, 2:12] = 255
    Image.fromarray(pixels).save(kit / "JPEGImages" / f"{FIRST}.png")
    (kit / "JPEGImages" / f"{FIRST}.jpg").unlink()
    _annotate(kit, _object("dog", (3, 5, 12, 9)), width=40, height=40)
    sample = _samples(kit, size=40)[FIRST]
    x0, y0, x1, y1 = sample.boxes.xyxy[0].astype(int)
    inside = np.zeros((40, 40), bool)
    inside[y0:y1, x0:x1] = True
    assert np.array_equal(sample.image[0] > 127, inside)


def test_a_box_beyond_the_image_is_cut_and_noted(kit):
    _annotate(kit, _object("dog", (0, 0, 41, 15)))
    sample = _samples(kit)[FIRST]
    assert np.array_equal(sample.boxes.xyxy, [[0, 0, SIZE, SIZE / 2]])
    assert sample.notes == (BEYOND,)


def test_a_box_of_one_pixel_is_kept(kit):
    _annotate(kit, _object("dog", (7, 7, 7, 7)))
    sample = _samples(kit, size=40)[FIRST]
    assert np.allclose(sample.boxes.xyxy, [[6, 8, 7, 28 / 3]], atol=1e-4)
    assert sample.notes == ()


def test_difficult_objects_make_a_class_unknown_unless_another_shows_it(kit):
    easy, hard = _object("dog", (2, 2, 9, 9)), _object("car", (3, 3, 9, 9), difficult=1)
    _annotate(kit, easy, hard, _object("dog", (4, 4, 8, 8), difficult=1))
    classes = _layout(kit).classes
    assert classes == ("bottle", "car", "dog", "person")
    sample = _samples(kit)[FIRST]
    assert np.array_equal(sample.label, [0, np.nan, 1, 0], equal_nan=True)
    assert sample.boxes.classes.tolist() == [2]
    assert len(sample.notes) == 1
    ignored = _samples(kit, difficult="present")[FIRST]
    assert np.array_equal(ignored.label, [0, 1, 1, 0])
    assert ignored.boxes.classes.tolist() == [2, 1, 2]
    assert ignored.notes == ()


def test_an_image_without_objects_is_kept_and_noted(kit):
    _annotate(kit)
    sample = _samples(kit)[FIRST]
    assert not sample.label.any()
    assert sample.boxes.xyxy.shape == (0, 4)
    assert sample.notes == ("images have no object; kept",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_object("dog", (9, 9, 3, 12)), "object 1: the box has no area"),
        (_object("dog", (50, 9, 60, 12)), "object 1: the box is off the image"),
        (_object("dog", ("nan", 9, 60, 12)), "no finite number"),
        (_object("dog", ("x", 9, 60, 12)), "xmin is not a number"),
        (_object("dog", (1, 9, 6, 12), difficult=2), "difficult is 0 or 1"),
        ("<object><name>dog</name></object>", "no name or no bndbox"),
        (_object(" ", (1, 9, 6, 12)), "no name or no bndbox"),
        ("<object>", "line 1: not well-formed"),
    ],
)
def test_an_annotation_that_cannot_be_is_refused(kit, text, reason):
    path = _annotate(kit, text)
    (problem,) = _refusals(kit)
    assert problem.path == path
    assert reason in problem.reason


def test_boxes_drawn_on_another_size_are_refused(kit):
    path = _annotate(kit, _object("dog", (1, 1, 5, 5)), width=500, height=375)
    (problem,) = _refusals(kit)
    assert problem.path == path
    assert "drawn on 500 x 375 pixels, but the image has 40 x 30" in problem.reason


def test_an_annotation_that_states_no_size_is_read(kit):
    _annotate(kit, _object("dog", (1, 1, 5, 5)), width=0, height=0)
    assert FIRST in _samples(kit)


def test_splits_are_the_lists_and_trainval_adds_what_is_in_none(kit):
    lists = kit / "ImageSets" / "Main"
    (lists / "val.txt").unlink()
    samples = _samples(kit)
    for name, sample in samples.items():
        number = int(name)
        wanted = Split.TRAIN if number <= 30 else None if number <= 45 else Split.TEST
        assert sample.split == wanted
    assert _layout(kit).remarks()[0].startswith("1 annotations are in no list")


def test_without_lists_every_annotation_is_read(kit):
    shutil.rmtree(kit / "ImageSets")
    samples = _samples(kit)
    assert len(samples) == 61
    assert {sample.split for sample in samples.values()} == {None}
    shutil.copy(kit / "JPEGImages" / f"{FIRST}.jpg", kit / "JPEGImages" / "stray.jpg")
    (problem,) = _refusals(kit)
    assert problem.path.name == "stray.jpg"


def test_a_name_in_two_lists_is_refused_and_not_read(kit):
    with (kit / "ImageSets" / "Main" / "test.txt").open("a") as file:
        file.write(f"{FIRST}\n")
    (problem,) = _refusals(kit)
    assert problem.path.name == "test.txt"
    assert f"{FIRST} is in train.txt as well" in problem.reason


def test_a_name_twice_in_a_list_is_refused(kit):
    with (kit / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write(f"\n{FIRST}\n")
    with pytest.raises(BadFile, match="lists the same name as line 1"):
        _layout(kit)


def test_what_a_list_names_must_be_there(kit):
    (kit / "JPEGImages" / f"{FIRST}.jpg").unlink()
    (kit / "Annotations" / "000002.xml").unlink()
    found = {problem.path.name: problem.reason for problem in _refusals(kit)}
    assert found.keys() == {f"{FIRST}.xml", "000002.xml"}
    assert f"no {FIRST}.jpg" in found[f"{FIRST}.xml"]


def test_several_years_want_a_choice(kit):
    shutil.copytree(kit, kit.parent / "VOC2012")
    with pytest.raises(UserError, match=r"several sets \(VOC2007, VOC2012\)"):
        _layout(kit.parent)


def test_an_option_that_cannot_be_is_refused(kit):
    with pytest.raises(UserError, match="difficult: one of unknown, present"):
        _layout(kit, difficult="maybe")


def test_the_digest_follows_what_is_read(kit):
    before = _layout(kit).source_digest()
    (kit / "SegmentationClass").mkdir()
    (kit / "Annotations" / "000061.xml").write_text("in no list")
    assert _layout(kit).source_digest() == before
    _annotate(kit, _object("dog", (1, 1, 5, 5)))
    assert _layout(kit).source_digest() != before


def _drawn(root: Path, name: str, order: tuple[str, ...], scale: tuple[float, float], side: int):
    """(K, side, side) of the boxes of an annotation, by loops over pixels' centres."""
    masks = np.zeros((len(order), side, side), bool)
    for kind, (x0, y0, x1, y1) in _objects(root / "Annotations" / f"{name}.xml"):
        left, right = round(max(x0 - 1, 0) * scale[0]), round(x1 * scale[0])
        top, bottom = round(max(y0 - 1, 0) * scale[1]), round(y1 * scale[1])
        masks[order.index(kind), top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return masks


def test_real_regions_are_the_boxes_of_each_class(real_data):
    root = real_data / "BCCD_Dataset" / "BCCD"
    layout = _layout(root, 480, target="regions")
    assert layout.tasks == (TaskName.REGION_SEGMENTATION, TaskName.MULTILABEL)
    assert layout.regions == ("Platelets", "RBC", "WBC")
    assert any("masks are boxes" in remark for remark in layout.remarks())
    for case in list(layout.cases())[::17]:
        (sample,) = layout.load(case)
        wanted = _drawn(root, sample.source.stem, layout.regions, (480 / 640, 1.0), 480)
        assert (sample.mask != wanted).mean() < 2e-3  # where a half is rounded
        assert np.array_equal(sample.label == 1, sample.mask.any(axis=(1, 2)))


def test_real_classes_exclude_each_other_with_the_smaller_box_on_top(real_data):
    root = real_data / "BCCD_Dataset" / "BCCD"
    layout = _layout(root, 96, target="classes")
    assert layout.tasks == (TaskName.MULTICLASS_SEGMENTATION,)
    assert layout.classes == ("background", "Platelets", "RBC", "WBC")
    regions = _samples(root, 96, target="regions")
    overlapping = 0
    for case in list(layout.cases())[::9]:
        (sample,) = layout.load(case)
        apart = regions[sample.source.stem].mask
        assert np.array_equal(sample.mask[0] > 0, apart.any(axis=0))
        alone = apart.sum(axis=0) == 1
        assert np.array_equal(sample.mask[0][alone], apart.argmax(axis=0)[alone] + 1)
        overlaps = bool((apart.sum(axis=0) > 1).any())
        assert any("overlapping boxes" in note for note in sample.notes) == overlaps
        overlapping += overlaps
        assert sample.label is None
    assert overlapping


def test_the_smaller_box_is_on_top_whatever_the_order(kit):
    small, large = ("car", (15, 10, 20, 16)), ("dog", (5, 5, 35, 28))
    for order in ((small, large), (large, small)):
        _annotate(kit, *(_object(*entry) for entry in order))
        sample = _samples(kit, 120, target="classes")[FIRST]
        layout = _layout(kit, target="classes")
        # Pixels are 3 wide and 4 high here.
        inner = sample.mask[0, 4 * 9 : 4 * 16, 3 * 14 : 3 * 20]
        assert (inner == layout.classes.index("car")).all()
        assert sample.mask[0, 4 * 5, 3 * 5] == layout.classes.index("dog")
        assert sample.mask[0, 0, 0] == 0


def test_a_difficult_object_is_in_no_mask_unless_it_counts(kit):
    _annotate(kit, _object("car", (15, 10, 20, 16), 1), _object("dog", (30, 20, 35, 28)))
    place = _layout(kit).classes.index("car")
    assert not _samples(kit, target="regions")[FIRST].mask[place].any()
    present = _samples(kit, target="regions", difficult="present")[FIRST]
    assert present.mask[place].any()


def test_an_unknown_target_is_refused(kit):
    with pytest.raises(UserError, match="target: one of labels, classes, regions"):
        _layout(kit, target="masks")
