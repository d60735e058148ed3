"""CSV and TSV files, plain or gzipped: small ones to rows, huge ones to Arrow batches."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.records import MAX_RECORD, Block, blocks
from trustsweep.data_pipelines.registry import nearest

#: Of text, inflated: what `read_table` holds at most, and what `stream_table` never holds.
MAX_TABLE_BYTES = 2**28

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_TRUE, _FALSE = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n")
#: Floats are exact up to here.
_EXACT = 2**53


class ColumnKind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    NUMBER = "number"
    INTEGER = "whole number"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row; `row["age"]` is a str, float, int or bool after its kind, or None where empty.

    Attributes:
        line: Where it starts in the file, from 1.
        values: Column to value.
    """

    line: int
    values: Mapping[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.values[column]


@dataclass(frozen=True)
class Table:
    """The requested columns of every row.

    Attributes:
        path: The file.
        rows: In the file's order.
        header: All columns that the file has.
        repeated: Rows left out, as they repeat an earlier one.
    """

    path: Path
    rows: tuple[TableRow, ...]
    header: tuple[str, ...]
    repeated: int = 0

    def __iter__(self) -> Iterator[TableRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def remarks(self) -> list[str]:
        """What the user should know of the table as a whole."""
        if not self.repeated:
            return []
        rows = "row repeats" if self.repeated == 1 else "rows repeat"
        return [f"{self.path.name}: {self.repeated} {rows} an earlier one in every field; left out"]

    def bad(self, row: TableRow, column: str, rule: str) -> BadFile:
        """For a value that a layout cannot use: `rule` is the end of "column 'age' ...".

        Quotes no value; let `rule` do so where the column identifies nobody.
        """
        return BadFile(self.path, f"line {row.line}: column {column!r} {rule}")


@dataclass(frozen=True)
class _Format:
    """How to read a file."""

    path: Path
    columns: Mapping[str, ColumnKind]
    delimiter: str
    missing: frozenset[str]
    required: Collection[str]
    private: frozenset[str]


def read_table(
    path: Path,
    columns: Mapping[str, ColumnKind],
    *,
    unique: str | None = None,
    repeats: bool = False,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
    missing: Collection[str] = ("",),
    required: Collection[str] = (),
    private: Collection[str] = (),
) -> Table:
    """The named columns of a file of at most `MAX_TABLE_BYTES`, in UTF-8 with or without BOM.

    Args:
        path: Plain or gzipped, recognised by its content.
        columns: The columns to read and what they hold. Others are ignored.
        unique: A column whose values differ in all rows; it must not be empty either.
        repeats: Leave out a row that equals the earlier one of its `unique` value in every field of
            the file, read or not; the caller hands `Table.remarks` on to the user. One that differs
            in any field is refused all the same.
        delimiter: Between fields.
        header: The file's columns, for one without a line that names them.
        missing: The exact texts of a missing value. Without "nan" in it, NaN is refused.
        required: Columns that must not be empty.
        private: Columns whose values no message quotes; `unique` is always among them.

    Whole numbers may be written with ".0", as pandas does to a column with gaps. Booleans are 1/0,
    true/false, t/f, yes/no and y/n. Empty lines are no rows, and neither are empty fields behind
    the last named column. Raises `BadFile` with line and column for anything else.
    """
    spec = _format(path, columns, delimiter, missing, required, private, unique)
    names, stream = _open(spec, header)
    rows: list[TableRow] = []
    first: dict[Any, tuple[int, bytes]] = {}
    total = repeated = 0
    for block in stream:
        total += len(block.text)
        if total > MAX_TABLE_BYTES:
            raise BadFile(path, f"more than {MAX_TABLE_BYTES:,} bytes of text. Split the file.")
        for row, record in _rows(spec, names, block):
            if unique is not None:
                content = _content(record) if repeats else b""
                line, earlier = first.setdefault(row[unique], (row.line, content))
                if line != row.line and repeats and content == earlier:
                    repeated += 1
                    continue
                if line != row.line:
                    raise BadFile(
                        path,
                        f"line {row.line}, column {unique!r}: the same value as in line {line}. "
                        "Keep one of the two.",
                    )
            rows.append(row)
    return Table(path, tuple(rows), names, repeated)


def read_header(path: Path, *, delimiter: str = ",") -> tuple[str, ...]:
    """The columns that the first line names, without blanks around them. Raises `BadFile`."""
    return _open(_format(path, {}, delimiter, (), (), ()), None)[0]


def stream_table(
    path: Path,
    columns: Mapping[str, ColumnKind],
    *,
    batch_rows: int = 65_536,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
    missing: Collection[str] = ("",),
    required: Collection[str] = (),
    private: Collection[str] = (),
) -> Iterator[pa.RecordBatch]:
    """As `read_table`, a batch of at most `batch_rows` rows after the other, in bounded memory.

    Columns come in the order of `columns` as string, double, int64 and bool. What is wrong raises
    `BadFile` when the iteration arrives there, a missing column with the first batch.
    """
    spec = _format(path, columns, delimiter, missing, required, private)
    names, stream = _open(spec, header)
    for block in stream:
        # Arrow is fast and strict, but neither names lines nor keeps values to itself: what it
        # refuses is read again the slow way, which accepts it or says what is wrong.
        batch = _fast(spec, names, block) or _slow(spec, names, block)
        for start in range(0, batch.num_rows, batch_rows):
            yield batch.slice(start, batch_rows)


def _format(
    path: Path,
    columns: Mapping[str, ColumnKind],
    delimiter: str,
    missing: Collection[str],
    required: Collection[str],
    private: Collection[str],
    unique: str | None = None,
) -> _Format:
    own = () if unique is None else (unique,)
    required, hidden = {*required, *own}, frozenset((*private, *own))
    if unknown := (required | hidden) - set(columns):
        raise ValueError(f"{sorted(unknown)} are not among the columns to read")
    return _Format(path, columns, delimiter, frozenset(missing), required, hidden)


def _open(spec: _Format, header: Sequence[str] | None) -> tuple[tuple[str, ...], Iterator[Block]]:
    """The file's columns, and its rows in blocks."""
    stream = blocks(spec.path)
    if header is None:
        first = next(stream, Block(1, ""))
        header, rest = _header(spec, first)
        stream = _chained(rest, stream)
    names = tuple(header)
    for column in spec.columns:
        if column not in names:
            known = [name for name in names if name]
            raise BadFile(
                spec.path,
                f"no column {column!r}{nearest(column, known)} It has: {', '.join(known)}.",
            )
        if names.count(column) > 1:
            raise BadFile(spec.path, f"several columns {column!r}. Rename or remove the others.")
    return names, stream


def _chained(first: Block, others: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from others


def _header(spec: _Format, block: Block) -> tuple[list[str], Block]:
    """The names in the first record that is not empty, and what follows it."""
    source = io.StringIO(block.text, newline="")
    reader = csv.reader(source, delimiter=spec.delimiter, strict=True)
    try:
        names = next((record for record in reader if record), None)
    except csv.Error as error:
        raise BadFile(spec.path, f"line {reader.line_num}: {error}. Correct it.") from error
    if names is None:
        raise BadFile(spec.path, "no line names the columns. Fetch it again.")
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    return names, Block(block.line + reader.line_num, source.read())


def _content(record: Sequence[str]) -> bytes:
    """Of a row, in a few bytes; empty fields at its end are none."""
    text = "\0".join(record).rstrip("\0")
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest()


def _rows(
    spec: _Format, names: Sequence[str], block: Block
) -> Iterator[tuple[TableRow, list[str]]]:
    """Each row, and its fields as they stand in the file."""
    places = [(name, kind, names.index(name)) for name, kind in spec.columns.items()]
    for line, record in _records(spec, len(names), block):
        values = {
            name: _value(spec, line, name, kind, record[place]) for name, kind, place in places
        }
        yield TableRow(line, values), record


def _records(spec: _Format, width: int, block: Block) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(block.text, newline=""), delimiter=spec.delimiter, strict=True)
    line = block.line
    try:
        for record in reader:
            if record:
                if len(record) < width or any(record[width:]):
                    raise BadFile(
                        spec.path,
                        f"line {line}: {len(record)} fields where {width} columns are named. "
                        "Correct the line; a field with a delimiter in it stands in quotes.",
                    )
                yield line, record
            line = block.line + reader.line_num
    except csv.Error as error:
        raise BadFile(spec.path, f"line {line}: {error}. Correct it.") from error


def _value(spec: _Format, line: int, column: str, kind: ColumnKind, text: str) -> Any:
    stripped = text if kind is ColumnKind.TEXT else text.strip()
    if stripped in spec.missing:
        if column in spec.required:
            raise BadFile(spec.path, f"line {line}, column {column!r}: empty. Fill it in.")
        return None
    value = _parsed(kind, stripped)
    if value is None:
        shown = "a value" if column in spec.private else repr(text[:40])
        raise BadFile(
            spec.path, f"line {line}, column {column!r}: {shown} is no {kind}. Correct it."
        )
    return value


def _parsed(kind: ColumnKind, text: str) -> Any:
    """None for a text that is not of its kind."""
    if kind is ColumnKind.TEXT:
        return text
    if kind is ColumnKind.BOOLEAN:
        lower = text.lower()
        return lower in _TRUE if lower in _TRUE + _FALSE else None
    if kind is ColumnKind.INTEGER and _INTEGER.fullmatch(text):
        whole = int(text)
        return whole if -(2**63) <= whole < 2**63 else None
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        return None
    if kind is ColumnKind.NUMBER:
        return number
    return int(number) if number.is_integer() and abs(number) <= _EXACT else None


_ARROW = {
    ColumnKind.TEXT: pa.string(),
    ColumnKind.NUMBER: pa.float64(),
    ColumnKind.INTEGER: pa.int64(),
    ColumnKind.BOOLEAN: pa.bool_(),
}


def _slow(spec: _Format, names: Sequence[str], block: Block) -> pa.RecordBatch:
    rows = [row for row, _ in _rows(spec, names, block)]
    return pa.record_batch(
        {
            name: pa.array([row[name] for row in rows], _ARROW[kind])
            for name, kind in spec.columns.items()
        }
    )


def _fast(spec: _Format, names: Sequence[str], block: Block) -> pa.RecordBatch | None:
    """None for a block with anything that `_slow` might refuse, or read differently."""
    if block.text.count('"') % 2:  # Arrow closes an open quote at the end
        return None
    # Integers as floats first: Arrow would refuse "5.0", and take "0x1F".
    types = {
        kind: pa.float64() if kind is ColumnKind.INTEGER else _ARROW[kind] for kind in ColumnKind
    }
    places = {name: str(names.index(name)) for name in spec.columns}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(block.text.encode()),
            arrow_csv.ReadOptions(
                use_threads=False,
                block_size=2 * MAX_RECORD,
                column_names=[str(place) for place in range(len(names))],
            ),
            arrow_csv.ParseOptions(delimiter=spec.delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                include_columns=list(places.values()),
                column_types={places[n]: types[kind] for n, kind in spec.columns.items()},
                null_values=list(spec.missing),
                strings_can_be_null=True,
                true_values=_spellings(_TRUE),
                false_values=_spellings(_FALSE),
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    arrays = {}
    for name, kind in spec.columns.items():
        array = table[places[name]].combine_chunks()
        if not _sound(array, kind, name in spec.required):
            return None
        arrays[name] = array.cast(_ARROW[kind])
    return pa.record_batch(arrays)


def _spellings(words: Collection[str]) -> list[str]:
    return sorted({form for word in words for form in (word, word.title(), word.upper())})


def _sound(array: pa.Array, kind: ColumnKind, required: bool) -> bool:
    if required and array.null_count:
        return False
    if kind not in (ColumnKind.NUMBER, ColumnKind.INTEGER) or array.null_count == len(array):
        return True
    sound = pc.is_finite(array)
    if kind is ColumnKind.INTEGER:
        whole = pc.equal(pc.floor(array), array)
        sound = pc.and_(sound, pc.and_(whole, pc.less_equal(pc.abs(array), float(_EXACT))))
    return bool(pc.all(sound).as_py())
