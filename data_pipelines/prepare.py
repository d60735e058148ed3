"""`trustsweep prepare`: a published folder in, shards and a manifest out; all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipelines import preprocess, splits
from data_pipelines.errors import UserError
from data_pipelines.layouts import LAYOUTS
from data_pipelines.layouts.base import Layout
from data_pipelines.problems import BadFile, BadFiles
from data_pipelines.sample import Sample
from data_pipelines.schema import MANIFEST_NAME, SCHEMA_VERSION, Manifest, Split
from data_pipelines.shards import (
    IMAGE_SCALE,
    ChannelStatistics,
    SplitWriter,
    load_manifest,
    record_batch,
    table_schema,
    whole_or_nothing,
    write_manifest,
)

#: Samples held in memory at a time.
_CHUNK = 64
_SPOOL = "samples.arrow"
_COPY = "images are copies of another and left out"


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        manifest: Of the data set at `out`.
        warnings: What the user should know, a sentence each.
        unchanged: The same data set was there already, and nothing was done.
    """

    manifest: Manifest
    warnings: tuple[str, ...] = ()
    unchanged: bool = False


def prepare(
    folder: Path | None,
    layout: str,
    out: Path,
    *,
    size: int,
    seed: int = 0,
    overwrite: bool = False,
    ratios: Sequence[float] = tuple(splits.RATIOS.values()),
    ood_site: str | None = None,
    **options: Any,
) -> PrepareReport:
    """Turn a folder as its publisher ships it into shards at `out`.

    Args:
        folder: The folder; None for a layout that generates its images.
        layout: A name of `LAYOUTS`.
        out: Where the shards go. The same data set there already is left as it is.
        size: Images become size x size pixels.
        seed: Of the split, and of generated images.
        overwrite: Replace another data set at `out`.
        ratios: Shares of train, validation and test, where the publisher does not say.
        ood_site: A site that is held out as a whole.
        options: The layout's own.

    Raises:
        UserError: for a layout, option, folder or `out` that cannot be, and for an empty split.
        BadFiles: after trying every file, naming all that cannot be used. Nothing is written then.
    """
    if size < 1 or seed < 0:
        raise UserError(f"size is at least 1 and seed at least 0, not {size} and {seed}.")
    source: Layout[Any] = LAYOUTS[layout].create(folder, size=size, seed=seed, options=options)
    shares = _shares(ratios)
    parameters = {
        "size": size,
        "seed": seed,
        "ratios": list(shares.values()),
        "ood_site": ood_site,
        **source.options(),
        **options,
    }
    fingerprint = _fingerprint(source, parameters)
    if (existing := _existing(out, fingerprint, overwrite)) is not None:
        return PrepareReport(existing, (f"{out} is up to date; nothing was done",), unchanged=True)
    with whole_or_nothing(out) as partial:
        spool = partial / _SPOOL
        members, notes = _read_all(source, spool)
        assigned = splits.assign(members, ratios=shares, ood_site=ood_site, seed=seed)
        splits.assert_disjoint(
            (m.patient, s) for m, s in zip(members, assigned, strict=True) if s is not None
        )
        schema, statistics = _write_splits(partial, spool, assigned)
        spool.unlink()
        manifest = _manifest(source, assigned, schema, statistics, parameters, fingerprint)
        write_manifest(partial, manifest)
    if dropped := assigned.count(None):
        notes["images are left out: their patients are in a split that is held out from theirs"] = (
            dropped
        )
    leftover = sorted(path.name for path in out.parent.glob(f"{out.name}.partial-*"))
    killed = [f"{name}: left by another preparation; remove it if none runs" for name in leftover]
    seen = len(members) + notes[_COPY]
    counted = [f"{count} of {seen} {note}" for note, count in notes.items() if count]
    return PrepareReport(manifest, (*source.remarks(), *counted, *killed))


def _shares(ratios: Sequence[float]) -> dict[Split, float]:
    names = (Split.TRAIN, Split.VAL, Split.TEST)
    valid = (
        isinstance(ratios, list | tuple)
        and len(ratios) == len(names)
        and all(isinstance(ratio, float | int) and 0 <= ratio <= 1 for ratio in ratios)
    )
    if not valid or not math.isclose(sum(ratios), 1, abs_tol=1e-6):
        raise UserError(
            f"ratios: three shares of train, val and test that add up to 1, not {ratios}."
        )
    return {name: float(ratio) for name, ratio in zip(names, ratios, strict=True)}


def _fingerprint(source: Layout[Any], parameters: Mapping[str, Any]) -> str:
    """Of the content, the parameters and the code's versions; the same on any machine."""
    parts = [SCHEMA_VERSION, preprocess.VERSION, source.name, parameters, source.source_digest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _existing(out: Path, fingerprint: str, overwrite: bool) -> Manifest | None:
    """The data set at `out` if it is the one asked for, None if `out` may be written."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / MANIFEST_NAME).is_file():
        raise UserError(f"{out}: not empty, and no data set either. Choose another --out.")
    if overwrite:
        return None
    manifest = load_manifest(out)
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"{out}: holds another data set ({manifest.name}, or other files or parameters). "
            "Choose another --out, or pass --overwrite to replace it."
        )
    return manifest


def _read_all(source: Layout[Any], spool: Path) -> tuple[list[splits.Member], Counter[str]]:
    """Load every case once into `spool`, as the splits are known only when all are seen.

    Returns what splitting needs, in the order of the spool's rows, and how often each note came.
    """
    members: list[splits.Member] = []
    notes: Counter[str] = Counter()
    problems: list[BadFile] = []
    writer: pa.ipc.RecordBatchFileWriter | None = None
    with ExitStack() as open_files:
        for chunk in _chunks(_unique(_loaded(source, problems), notes, problems)):
            if writer is None:
                schema = table_schema(chunk[0])
                writer = open_files.enter_context(pa.ipc.new_file(spool, schema))
            writer.write_batch(record_batch(chunk, schema))
            for s in chunk:
                members.append(splits.Member(s.patient_id, s.site, s.stratum, s.split))
                notes.update(s.notes)
    if problems:
        raise BadFiles(problems)
    if not members:
        raise UserError(f"{source.folder}: no images here. Give the folder as it was published.")
    return members, notes


def _loaded(source: Layout[Any], problems: list[BadFile]) -> Iterator[Sample]:
    for case in source.cases():
        try:
            yield source.load(case)
        except BadFile as problem:
            problems.append(problem)


def _unique(
    samples: Iterable[Sample], notes: Counter[str], problems: list[BadFile]
) -> Iterator[Sample]:
    """Without the second of two identical images; if their masks differ, that is a problem."""
    seen: dict[bytes, tuple[bytes, str]] = {}
    for sample in samples:
        image = hashlib.sha256(sample.image.tobytes()).digest()
        mask = hashlib.sha256(b"" if sample.mask is None else sample.mask.tobytes()).digest()
        path = sample.source or Path(sample.sample_id)
        known_mask, known_path = seen.setdefault(image, (mask, str(path)))
        if known_path == str(path):
            yield sample
        elif known_mask == mask:
            notes[_COPY] += 1
        else:
            reason = f"the same image as {known_path} with another mask. Remove one of the two."
            problems.append(BadFile(path, reason))


def _chunks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _write_splits(
    folder: Path, spool: Path, assigned: Sequence[Split | None]
) -> tuple[pa.Schema, ChannelStatistics]:
    """Deal the spool's rows to their splits. Returns the columns and the train statistics."""
    statistics = ChannelStatistics()
    counts = Counter(assigned)
    with pa.memory_map(str(spool)) as file, pa.ipc.open_file(file) as reader:
        schema: pa.Schema = reader.schema
        writers = {s: SplitWriter(folder, s, schema, counts[s]) for s in Split if counts[s]}
        place = schema.get_field_index("split")
        done = 0
        for index in range(reader.num_record_batches):
            rows = reader.get_batch(index)
            theirs = assigned[done : done + rows.num_rows]
            done += rows.num_rows
            rows = rows.set_column(place, "split", pa.array(theirs, pa.string()))
            for split, writer in writers.items():
                part = rows.filter(pa.array([s is split for s in theirs]))
                writer.add(part)
                if split is Split.TRAIN and part.num_rows:
                    statistics.update(part.column("image").to_numpy_ndarray())
        for writer in writers.values():
            writer.close()
    return schema, statistics


def _manifest(
    source: Layout[Any],
    assigned: Sequence[Split | None],
    schema: pa.Schema,
    statistics: ChannelStatistics,
    parameters: dict[str, Any],
    fingerprint: str,
) -> Manifest:
    mean, std = statistics.compute()
    counts = Counter(assigned)
    return Manifest(
        name=source.name,
        tasks=source.tasks,
        image_shape=tuple(schema.field("image").type.shape),
        image_scale=IMAGE_SCALE,
        classes=source.classes,
        mean=mean,
        std=std,
        split_counts={str(split): counts[split] for split in Split if counts[split]},
        columns={field.name: _described(field.type) for field in schema},
        fingerprint=fingerprint,
        preprocessing=parameters,
        groups=source.groups,
        tabular_names=source.tabular_names,
        licence=source.licence,
        citation=source.citation,
    )


def _described(kind: pa.DataType) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"{kind.value_type}{list(kind.shape)}"
    return str(kind)
