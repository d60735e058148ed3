"""MedMNIST: every flag's shapes and labels, official splits, and reading piece by piece."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.layouts.medmnist import FLAGS, resize_solid
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split, TaskName
from trustsweep.data_pipelines.streams import Samples

SPLITS = ("train", "val", "test")


def _layout(folder: Path | None, size: int = 28, **options):
    return LAYOUTS["medmnist"].create(folder, size=size, seed=0, options=options)


def _samples(folder: Path, size: int = 28, **options) -> list[Sample]:
    layout = _layout(folder, size, **options)
    return [sample for case in layout.cases() for sample in layout.load(case)]


def _arrays(flag: str, count: int = 6, side: int = 28) -> dict[str, np.ndarray]:
    draw, known = np.random.default_rng(len(flag)), FLAGS[flag]
    shape = (side,) * 3 if known.solid else (side, side, 3) if known.colour else (side, side)
    arrays = {}
    for split in SPLITS:
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, *shape), np.uint8)
        several = known.task is TaskName.MULTILABEL
        high, width = (2, len(known.classes)) if several else (len(known.classes), 1)
        arrays[f"{split}_labels"] = draw.integers(0, high, (count, width)).astype(np.uint8)
    return arrays


def _write(folder: Path, flag: str, stem: str | None = None, **changes: np.ndarray) -> Path:
    path = folder / f"{stem or flag}.npz"
    np.savez_compressed(path, **{**_arrays(flag), **changes})
    return path


def test_all_eighteen_sets_are_known():
    assert len(FLAGS) == 18
    assert sum(flag.solid for flag in FLAGS.values()) == 6
    assert {name for name, flag in FLAGS.items() if flag.solid} == {
        name for name in FLAGS if name.endswith("3d")
    }
    assert all(len(set(flag.classes)) == len(flag.classes) >= 2 for flag in FLAGS.values())


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_gives_its_images_and_labels(tmp_path, flag):
    path, known = _write(tmp_path, flag), FLAGS[flag]
    arrays = _arrays(flag)
    layout = _layout(tmp_path)
    assert layout.tasks == (known.task,)
    assert layout.classes == known.classes
    samples = _samples(path)
    assert [s.split for s in samples] == [Split(split) for split in SPLITS for _ in range(6)]
    for index, sample in enumerate(samples):
        split, row = SPLITS[index // 6], index % 6
        pixels = arrays[f"{split}_images"][row]
        wanted = np.moveaxis(pixels, -1, 0) if known.colour else pixels[None]
        assert np.array_equal(sample.image, wanted)
        assert np.array_equal(np.atleast_1d(sample.label), arrays[f"{split}_labels"][row])
    assert len({s.patient_id for s in samples}) == len(samples)


def test_real_sets_arrive_whole(real_data, tmp_path):
    for flag, counts in (("breastmnist", (546, 78, 156)), ("pneumoniamnist", (3882, 524, 624))):
        samples = _samples(real_data / "medmnist", flag=flag)
        with np.load(real_data / "medmnist" / f"{flag}.npz", allow_pickle=False) as arrays:
            for split, count in zip(SPLITS, counts, strict=True):
                mine = [s for s in samples if s.split == split]
                assert len(mine) == count
                images = np.concatenate([s.image for s in mine])
                assert np.array_equal(images, arrays[f"{split}_images"])
                labels = arrays[f"{split}_labels"].ravel()
                assert np.array_equal([s.label for s in mine], labels)


def test_real_set_is_prepared_with_official_splits(real_data, tmp_path):
    report = prepare(
        real_data / "medmnist", "medmnist", tmp_path / "out", size=28, flag="breastmnist"
    )
    counts = report.manifest.split_counts
    # Identical images are left out by `prepare`, from training first.
    assert counts["train"] <= 546
    assert counts["val"] <= 78
    assert counts["test"] == 156
    assert any("names no patients" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("side", "size", "expected"), [(28, None, 28), (28, 40, 40), (128, None, 128), (160, None, 64)]
)
def test_images_keep_their_one_size_unless_it_is_large(tmp_path, side, size, expected):
    arrays = _arrays("breastmnist", side=side)
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    report = prepare(tmp_path / "breastmnist.npz", "medmnist", tmp_path / "out", size=size)
    assert report.manifest.image_shape == (1, expected, expected)
    assert report.manifest.preprocessing["size"] == expected
    told = [w for w in report.warnings if "--size" in w]
    assert bool(told) == (expected == 64)
    if expected == side:
        shards = Samples.read(tmp_path / "out", Split.TRAIN)
        kept = {(b.image * 255).round().byte().numpy().tobytes() for b in shards.sweep(1)}
        assert kept == {image.tobytes() for image in arrays["train_images"]}


def test_several_files_want_a_flag(tmp_path):
    _write(tmp_path, "breastmnist")
    _write(tmp_path, "breastmnist", "breastmnist_64")
    _write(tmp_path, "retinamnist")
    with pytest.raises(UserError, match=r"several sets.*breastmnist, breastmnist_64, retinamnist"):
        _layout(tmp_path)
    with pytest.raises(UserError, match="did you mean 'retinamnist'"):
        _layout(tmp_path, flag="retinmnist")
    layout = _layout(tmp_path, flag="retinamnist")
    assert len(layout.classes) == 5
    assert any("breastmnist, breastmnist_64" in remark for remark in layout.remarks())
    assert any("order" in remark for remark in layout.remarks())


def test_names_that_are_no_flag_are_refused(tmp_path):
    path = _write(tmp_path, "breastmnist", "brestmnist")
    with pytest.raises(UserError, match="did you mean 'breastmnist'"):
        _layout(path)
    with pytest.raises(UserError, match=r"no <flag>\.npz"):
        _layout(tmp_path)
    with pytest.raises(UserError, match="flag: the name of a file"):
        _layout(tmp_path, flag=3)


@pytest.mark.parametrize(
    "change",
    [
        {"val_labels": np.zeros((6, 2), np.uint8)},
        {"val_labels": np.zeros((6, 1), np.float32)},
        {"val_labels": np.zeros((5, 1), np.uint8)},
        {"val_images": np.zeros((6, 28, 28, 3), np.uint8)},
        {"val_images": np.zeros((6, 784), np.uint8)},
    ],
)
def test_arrays_of_another_form_are_refused_before_any_image_is_read(tmp_path, change):
    path = _write(tmp_path, "breastmnist", **change)
    with pytest.raises(BadFile, match="val_"):
        _layout(path)


def test_a_missing_array_is_named(tmp_path):
    arrays = _arrays("breastmnist")
    del arrays["test_images"]
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    with pytest.raises(BadFile, match="test_images are missing"):
        _layout(tmp_path)


def test_a_label_outside_the_classes_is_refused_by_its_place(tmp_path):
    labels = np.array([[0], [1], [2], [0], [1], [0]], np.uint8)
    layout = _layout(_write(tmp_path, "breastmnist", val_labels=labels))
    refused = []
    for case in layout.cases():
        try:
            list(layout.load(case))
        except BadFile as problem:
            refused.append(problem.reason)
    assert len(refused) == 1
    assert refused[0].startswith("val_labels[2] is 2; labels are 0 to 1.")


def test_images_of_another_type_are_refused(tmp_path):
    path = _write(tmp_path, "breastmnist", train_images=np.zeros((6, 28, 28), np.float32))
    layout = _layout(path)
    with pytest.raises(BadFile, match="train_images are float32"):
        list(layout.load(next(layout.cases())))


def test_a_damaged_file_is_refused_in_every_place(tmp_path):
    path = tmp_path / "breastmnist.npz"
    np.savez(path, **_arrays("breastmnist", count=600))
    content = bytearray(path.read_bytes())
    content[50_000] ^= 0xFF  # among the pixels of the training images, which come first
    path.write_bytes(content)
    layout = _layout(path)
    good, bad = set(), []
    for case in layout.cases():
        try:
            good |= {s.split for s in layout.load(case)}
        except BadFile as problem:
            bad.append((case.split, problem.path))
    assert {Split.VAL, Split.TEST} <= good
    assert bad
    assert set(bad) == {(Split.TRAIN, path)}


def test_any_order_and_several_threads_give_the_same_rows(tmp_path):
    path = tmp_path / "breastmnist.npz"
    arrays = _arrays("breastmnist", count=600)
    np.savez_compressed(path, **arrays)
    layout = _layout(path)
    cases = list(layout.cases())
    order = np.random.default_rng(0).permutation(len(cases))[:60]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: next(layout.load(cases[place])), order))
    for place, sample in zip(order, found, strict=True):
        case = cases[place]
        assert np.array_equal(sample.image[0], arrays[f"{case.split}_images"][case.index])


def test_solid_images_keep_their_axes_and_mean():
    voxels = np.zeros((28, 28, 28), np.uint8)
    voxels[:14], voxels[:, 7:14] = 200, 100
    half = resize_solid(voxels, 14)
    blocks = voxels.reshape(14, 2, 14, 2, 14, 2).mean(axis=(1, 3, 5))
    assert half.shape == (1, 14, 14, 14)
    assert np.array_equal(half[0], np.rint(blocks))
    grown = resize_solid(voxels, 56)
    assert grown.shape == (1, 56, 56, 56)
    assert abs(grown.mean() - voxels.mean()) < 1
    assert grown[0, 10, 5, 30] == 200
    assert grown[0, 50, 50, 30] == 0


def test_solid_images_are_prepared(miniature, tmp_path):
    report = prepare(miniature("medmnist"), "medmnist", tmp_path / "out", size=8)
    assert report.manifest.image_shape == (1, 8, 8, 8)
    assert report.manifest.split_counts == {"train": 44, "val": 12, "test": 15}


def test_the_digest_follows_content_alone(miniature, tmp_path):
    copy = Path(shutil.copytree(miniature("medmnist"), tmp_path / "copy"))
    assert _layout(copy).source_digest() == _layout(miniature("medmnist")).source_digest()
    arrays = dict(np.load(copy / "organmnist3d.npz", allow_pickle=False))
    arrays["train_labels"][0] += 1
    np.savez_compressed(copy / "organmnist3d.npz", **arrays)
    assert _layout(copy).source_digest() != _layout(miniature("medmnist")).source_digest()
