"""`trustsweep prepare`: a published folder in, shards and a manifest out; all of it or nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines import preprocess
from trustsweep.data_pipelines.building import splits
from trustsweep.data_pipelines.building.arrange import Arrangement
from trustsweep.data_pipelines.building.dataset import Dealt, Place, write_dataset
from trustsweep.data_pipelines.building.shards import (
    SCALES,
    UPLOADING,
    building,
    load_manifest,
    publish,
)
from trustsweep.data_pipelines.building.spool import Chunk, SampleRow, Spool
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.problems import LISTED, BadFile, BadFiles
from trustsweep.data_pipelines.schema import (
    INDEX_NAME,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Manifest,
    Split,
)
from trustsweep.data_pipelines.storage import Folder

_SPOOL, _STAMP = "spool", "fingerprint"
SKIPPED_NAME = "skipped.csv"
#: Pixels a side where none are given and the images have no one size of their own up to
#: `LARGEST_OWN`, which a sweep on one machine can still train on.
DEFAULT_SIZE, LARGEST_OWN = 64, 128
_SKIPPED = "skipped"
#: In a manifest's `preprocessing`: a `PatientSource`, and the digest of the user's list.
_PATIENTS, _PATIENT_LIST = "patients", "patient_list"
_RESIZED = "all images have {} pixels a side and become {}; --size chooses another"
_COPY = "images are copies of another and left out"
_LEFT_OUT = "images are left out: their patients are in a split that is held out from theirs"


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        manifest: Of the data set at `out`; of the first one, where several were made.
        warnings: What the user should know, a sentence each.
        unchanged: The same data set was there already, and nothing was done.
        folders: Names below `out` of several data sets (folds, sites); () for one at `out` itself.
    """

    manifest: Manifest
    warnings: tuple[str, ...] = ()
    unchanged: bool = False
    folders: tuple[str, ...] = ()


def prepare(
    folder: Path | None,
    layout: str,
    out: str | Path | Folder,
    *,
    size: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    skip_bad: bool = False,
    ratios: Sequence[float] = tuple(splits.RATIOS.values()),
    ood_site: str | Sequence[str] | None = None,
    folds: int = 0,
    dtype: str = "uint8",
    patients: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> PrepareReport:
    """Turn a folder as its publisher ships it into shards at `out`.

    Interrupted preparations resume: what was read is kept beside `out` (for a URL, in the machine's
    folder for temporary files) and not read again.

    Args:
        folder: The folder; None for a layout that generates its images.
        layout: A name of `LAYOUTS`.
        out: Where the shards go, a path or a URL. The same data set there already is left as it is.
        size: Images become `size` pixels a side. None: they keep their own size where the layout
            knows that all of them share one (`Layout.own_size`) of at most `LARGEST_OWN`; else
            `DEFAULT_SIZE`.
        seed: Of the split, and of generated images.
        overwrite: Replace another data set at `out`.
        skip_bad: Leave out the cases that cannot be used, and list them in `skipped.csv` beside
            the shards.
        ratios: Shares of train, validation and test, where the publisher has no splits.
        ood_site: A site, or several, held out as a whole; "each" makes a data set for every site
            (leave one site out), in folders below `out`.
        folds: Make so many data sets for cross-validation, in folders below `out`; see
            `splits.fold`.
        dtype: How images are stored: uint8, or float16 for more than 8 bits.
        patients: A CSV file of file names and patients, for a layout that does not know them; see
            `layouts.patients.PatientList`. Every image must be listed.
        progress: Called with the cases read so far and in all.
        options: The layout's own.

    Raises:
        UserError: for an invalid layout, option, folder or `out`, and for an empty split.
        BadFiles: after trying every file, naming all that cannot be used; before that for errors
            in `patients`. Nothing is written then but, where they are many, their list.
    """
    if (size is not None and size < 1) or seed < 0:
        raise UserError(f"size is at least 1 and seed at least 0, not {size} and {seed}.")
    if dtype not in SCALES:
        raise UserError(f"dtype: {' or '.join(SCALES)}, not {dtype!r}.")
    target = Folder(out)
    source: Layout[Any] = LAYOUTS[layout].create(
        folder, size=size or DEFAULT_SIZE, seed=seed, options=options, patients=patients
    )
    own = source.own_size() if size is None else None
    if own is not None and own <= LARGEST_OWN:
        source.size = own
    arrangement = Arrangement.parse(ratios, ood_site, folds, seed)
    parameters = {
        "size": source.size,
        "seed": seed,
        "dtype": dtype,
        **arrangement.to_dict(),
        **source.options(),
        **options,
    }
    listed = source.patient_list
    if listed is not None:
        if listed.problems and not skip_bad:
            raise BadFiles(listed.problems, listed_in=_list_aside(target, listed.problems))
        parameters[_PATIENT_LIST] = listed.digest()
    fingerprint = _fingerprint(source, parameters)
    if (existing := _existing(target, fingerprint, overwrite, skip_bad)) is not None:
        return existing
    with building(target, _scratch(target, fingerprint)) as scratch:
        going_on = _take_up(scratch, fingerprint)
        spool = Spool(scratch / _SPOOL, source, dtype)
        try:
            chunks = spool.fill(progress)
            strays = () if listed is None else listed.strays
            notes, kept, skipped = _usable(chunks, strays, target, skip_bad)
            manifests = _write_sets(
                scratch, source, spool, kept, arrangement, notes, parameters, fingerprint, skipped
            )
        except UserError:
            shutil.rmtree(scratch)
            raise
        publish(scratch, target, (_SPOOL, _STAMP))
    read = sum(len(chunk.rows) for chunk in chunks)
    counted = [f"{count} of {read} {note}" for note, count in notes.items() if count]
    sized = [] if own in (None, source.size) else [_RESIZED.format(own, source.size)]
    warnings = (
        *going_on, *_of_patients(source), *source.remarks(), *sized, *_left_out(skipped), *counted,
        *_lacking(manifests),
    )  # fmt: skip
    folders = tuple(name for name in manifests if name)
    return PrepareReport(next(iter(manifests.values())), warnings, folders=folders)


def _usable(
    chunks: Sequence[Chunk], strays: Sequence[BadFile], target: Folder, skip_bad: bool
) -> tuple[Counter[str], list[tuple[SampleRow, Place]], list[BadFile]]:
    """How often each note came, the samples to keep, and what could not be used."""
    notes: Counter[str] = Counter()
    problems = list(strays)
    placed = []
    for index, chunk in enumerate(chunks):
        notes.update(chunk.notes)
        problems += chunk.problems
        placed += [(row, (index, place)) for place, row in enumerate(chunk.rows)]
    kept = _unique(placed, notes, problems)
    if problems and not skip_bad:
        raise BadFiles(problems, listed_in=_list_aside(target, problems))
    if not kept:
        raise UserError("no usable image or table here. Give the folder as it was published.")
    return notes, kept, problems


def _write_sets(
    scratch: Path,
    source: Layout[Any],
    spool: Spool,
    kept: Sequence[tuple[SampleRow, Place]],
    arrangement: Arrangement,
    notes: Counter[str],
    parameters: dict[str, Any],
    fingerprint: str,
    skipped: Sequence[BadFile],
) -> dict[str, Manifest]:
    """Write every data set of the arrangement below `scratch`; name to manifest."""
    manifests = {}
    sets = arrangement.divide([row.member for row, _ in kept])
    for name, assigned in sets.items():
        where = scratch / name
        if name:
            shutil.rmtree(where, ignore_errors=True)  # half-written by a process that was killed
            where.mkdir()
        else:
            for split in Split:
                shutil.rmtree(where / split, ignore_errors=True)
        dealt = [
            Dealt(row.sample_id, row.member.patient, place, split)
            for (row, place), split in zip(kept, assigned, strict=True)
            if split is not None
        ]
        manifests[name] = write_dataset(
            where,
            source,
            spool.columns,
            spool.take,
            dealt,
            parameters={
                **parameters,
                _SKIPPED: len(skipped),
                _PATIENTS: source.patient_source,
            },
            fingerprint=_of_set(fingerprint, name),
        )
        if skipped:
            _write_table(where / SKIPPED_NAME, skipped)
        if dropped := assigned.count(None):
            notes[f"{_LEFT_OUT}{f' ({name})' if name else ''}"] = dropped
    if "" not in sets:
        write_atomically(scratch / INDEX_NAME, json.dumps({"folders": list(sets)}))
    return manifests


def _unique(
    placed: Sequence[tuple[SampleRow, Place]], notes: Counter[str], problems: list[BadFile]
) -> list[tuple[SampleRow, Place]]:
    """Without duplicates, which would let a model be tested on what it was trained on.

    Of identical images the one in the most held-out published split stays. Visits of one patient
    that share an image but differ in other values all stay. Two samples of one name are problems,
    and so are all samples of an image with different masks: which mask is right is not known.
    """
    names: dict[str, str] = {}
    masks: dict[str, dict[str, str]] = {}
    best: dict[str, SampleRow] = {}
    order = (None, *Split)
    usable = []
    for row, place in placed:
        if (known := names.setdefault(row.sample_id, row.source)) != row.source:
            problems.append(BadFile(Path(row.source), f"the same name as {known}. Rename one."))
            continue
        usable.append((row, place))
        if row.image:
            masks.setdefault(row.image, {}).setdefault(row.mask, row.source)
        kept = best.setdefault(row.image, row)
        if order.index(row.member.split) > order.index(kept.member.split):
            best[row.image] = row
    result = []
    for row, place in usable:
        first = best[row.image]
        known_masks = masks.get(row.image, {})
        others = [source for mask, source in known_masks.items() if mask != row.mask]
        visit = row.member.patient == first.member.patient and row.content != first.content
        if others:
            reason = f"the same image as {others[0]} with another mask. Remove one of the two."
            problems.append(BadFile(Path(row.source), reason))
        elif not row.image or row is first or visit:
            result.append((row, place))
        else:
            notes[_COPY] += 1
    return result


def _fingerprint(source: Layout[Any], parameters: Mapping[str, Any]) -> str:
    """Of the content, the parameters and the code's versions; the same on any machine."""
    parts = [SCHEMA_VERSION, preprocess.VERSION, source.name, parameters, source.source_digest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _of_set(fingerprint: str, name: str) -> str:
    """The fingerprint of one of several data sets."""
    if not name:
        return fingerprint
    return hashlib.sha256(f"{fingerprint} {name}".encode()).hexdigest()


def _existing(
    target: Folder, fingerprint: str, overwrite: bool, skip_bad: bool
) -> PrepareReport | None:
    """The report if this data set lies at `target` already; None if it has to be written."""
    files = target.files()
    if UPLOADING in files:  # what broke off is ours
        return None
    if not files and (target.remote or not target.local.is_file()):
        return None
    names = _sets_at(target, files)
    if not names:
        raise UserError(f"{target}: not empty, and no data set either. Choose another --out.")
    if overwrite:
        return None
    try:
        manifests = {name: load_manifest(_below(target, name)) for name in names}
    except UserError as error:  # of an earlier version, or damaged
        raise UserError(f"{error} Pass --overwrite to replace it.") from error
    if any(m.fingerprint != _of_set(fingerprint, name) for name, m in manifests.items()):
        known = next(iter(manifests.values())).name
        raise UserError(
            f"{target}: holds another data set ({known}, or other files or parameters). "
            "Choose another --out, or pass --overwrite to replace it."
        )
    manifest = next(iter(manifests.values()))
    if (skipped := manifest.preprocessing[_SKIPPED]) and not skip_bad:
        raise UserError(
            f"{target}: made with --skip-bad, without {skipped} cases. Pass --skip-bad to take it "
            "as it is, or --overwrite to make it anew."
        )
    note = f"{target} is up to date; nothing was done"
    folders = tuple(name for name in names if name)
    return PrepareReport(manifest, (note,), unchanged=True, folders=folders)


def _sets_at(target: Folder, files: Mapping[str, int]) -> list[str]:
    if MANIFEST_NAME in files:
        return [""]
    if INDEX_NAME not in files:
        return []
    return list(json.loads(target.read(INDEX_NAME))["folders"])


def _below(target: Folder, name: str) -> Folder:
    return target.child(name) if name else target


def _scratch(target: Folder, fingerprint: str) -> Path:
    """Where a data set is built: beside `target`, on the same file system, if that is local."""
    if target.remote:
        return Path(tempfile.gettempdir()) / f"trustsweep-{fingerprint[:16]}.partial"
    return target.local.with_name(f"{target.local.name}.partial")


def _take_up(scratch: Path, fingerprint: str) -> list[str]:
    """Keep what a killed process of the same preparation read; clear what another one left."""
    for half in scratch.glob(".*.partial"):  # of a text that was being written
        half.unlink()
    stamp = scratch / _STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        return ["went on from where an earlier preparation was interrupted"]
    for entry in scratch.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()
    write_atomically(stamp, fingerprint)
    return []


def _list_aside(target: Folder, problems: Sequence[BadFile]) -> Path | None:
    """Where all problems are listed, if they are more than a message holds."""
    if len(problems) <= LISTED or target.remote:
        return None
    path = target.local.with_name(f"{target.local.name}.bad.csv")
    _write_table(path, problems)
    return path


def _write_table(path: Path, problems: Sequence[BadFile]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        writer.writerows([str(problem.path), problem.reason] for problem in problems)


def _of_patients(source: Layout[Any]) -> list[str]:
    if source.patient_list is not None:
        return list(source.patient_list.warnings)
    if not (doubt := source.patient_source.doubt):
        return []
    return [
        f"{doubt} (--patients FILE.csv gives the true ones)" if source.takes_patients else doubt
    ]


def _lacking(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """A sentence for each split that has nothing of some classes."""
    for name, manifest in manifests.items():
        for split in manifest.splits:
            if lacking := manifest.lacking(split):
                where = f"{name}, {split}" if name else split
                result = "no model learns them" if split is Split.TRAIN else "they have no metrics"
                yield f"{where}: no sample of {', '.join(lacking)}; {result} here"


def _left_out(skipped: Sequence[BadFile]) -> list[str]:
    if not skipped:
        return []
    return [f"cases that cannot be used, left out: {len(skipped)}; {SKIPPED_NAME} says why"]
