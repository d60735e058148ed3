"""A user's list of the patient of each image, for folders whose publisher does not give it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.tables import ColumnKind, TableRow, read_header, read_table

#: Headers that are understood, as `_plain` writes them.
_FILES = (
    "filename",
    "file",
    "filepath",
    "path",
    "image",
    "imagename",
    "imagefile",
    "imagepath",
    "imageindex",
    "imageid",
)
_PATIENTS = ("patient", "patientid", "patientname", "patientnumber", "subject", "subjectid")
_EXPECTED = (
    "Name one column 'file name' (or file, path, image, image name, image id) and one 'patient' "
    "(or patient id, subject, subject id)"
)
_DELIMITERS = (",", ";", "\t")
#: Stand for no patient, in any case.
_UNKNOWN = ("", "nan", "na", "n/a", "null", "none", "unknown", "?", "-")
#: An image may have been converted since the list was made.
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm")
_VOLUMES = (".nii", ".nii.gz")
_LISTED = 5

_BLANKS = re.compile(r"[\s\u200b\ufeff]+")
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_FLOAT = re.compile(r"(\d+)\.0+", re.ASCII)


def identity(patient: str) -> str:
    """One text for all spellings of an id that differ in what spreadsheets and copying change.

    These are letter case, blanks, the Unicode form, leading zeros of a number ("P007", "p 7") and
    the ".0" that a column of numbers with gaps gets. Ids that differ in nothing else become one
    patient: that can put too many images into one split, never one patient into two.
    """
    text = unicodedata.normalize("NFKD", patient).casefold()
    # Once more, as marks may meet where a blank was.
    text = unicodedata.normalize("NFKD", _BLANKS.sub("", text))
    if whole := _FLOAT.fullmatch(text):
        text = whole[1]
    return _ZEROS.sub("", text)


class PatientList:
    """Image to patient, from a CSV file with a row for each image.

    Columns: the file name and the patient, under any of the usual headers; others are passed over.
    Fields are separated by commas, semicolons or tabs. A name may be written with folders or
    without, and without its extension or with that of another image format, as long as one image
    alone fits; letter case and Unicode form decide only between several. Ids are compared by
    `identity`.

    Args:
        path: The file, in UTF-8.
        images: Every image that needs a patient.
        root: A folder above them all. Names are compared with paths below it.

    Attributes:
        path: The file.
        strays: Rows that belong to no image, or to several.
        warnings: Where ids are spelt in several ways, by the lines. No id is quoted.

    Raises:
        UserError: for a file that is missing, empty, no CSV in UTF-8, or without the two columns.
    """

    def __init__(self, path: Path, images: Iterable[Path], root: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file. Give --patients a CSV file of file names and patients."
            )
        self.path = path
        self._known: dict[Path, str] = {}
        self._reasons: dict[Path, str] = {}
        images = list(images)
        rows, file_column, patient_column = _read(path)
        index = _Index(images, root)
        strays: list[BadFile] = []
        lines: dict[Path, int] = {}
        spelt: dict[str, dict[str, int]] = defaultdict(dict)
        for row in rows:
            name = (row[file_column] or "").strip()
            try:
                image = index.find(name)
            except ValueError as error:
                strays.append(BadFile(path, f"line {row.line}, column {file_column!r}: {error}"))
                continue
            patient = (row[patient_column] or "").strip()
            if patient.casefold() in _UNKNOWN:
                self._reasons.setdefault(
                    image,
                    f"no patient in line {row.line} of {path}, column {patient_column!r}. "
                    "Fill it in; an image of an unknown person gets an id of its own.",
                )
                continue
            one = identity(patient)
            if self._known.setdefault(image, one) != one:
                self._reasons[image] = (
                    f"lines {lines[image]} and {row.line} of {path} name different patients. "
                    "Keep the right line."
                )
            lines.setdefault(image, row.line)
            spelt[one].setdefault(patient, row.line)
        for image in images:
            if image not in self._known and image not in self._reasons:
                self._reasons[image] = f"not listed in {path}. Add a line with its patient."
        for image in self._reasons:
            self._known.pop(image, None)
        self.strays = tuple(strays)
        self.warnings = tuple(_spellings(path, spelt.values()))

    @property
    def problems(self) -> list[BadFile]:
        """The strays, and images without a row, without a patient, or with two."""
        return [*self.strays, *(BadFile(image, why) for image, why in self._reasons.items())]

    def patient(self, image: Path) -> str:
        """The `identity` of the image's patient. Raises `BadFile` where it is not known."""
        if image in self._reasons:
            raise BadFile(image, self._reasons[image])
        return self._known[image]

    def digest(self) -> str:
        """Hex digest of the patient of each image, whatever the list's name, place and order."""
        # Below what they share, so that it does not matter which folder above was given.
        above = os.path.commonpath(self._known) if self._known else "."
        known = sorted(
            (image.relative_to(above).as_posix(), patient) for image, patient in self._known.items()
        )
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


class _Index:
    """Images by name, to be found by what a list calls them."""

    def __init__(self, images: Iterable[Path], root: Path) -> None:
        self._by_stem: dict[str, list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
        for image in images:
            parts = tuple(map(_composed, image.relative_to(root).parts))
            self._by_stem[_stem(parts[-1]).casefold()].append((image, parts))

    def find(self, name: str) -> Path:
        """Raises ValueError, with the end of a message, for none and for several."""
        if not name:
            raise ValueError("empty. Fill it in, or remove the line.")
        parts = PurePosixPath(_composed(name).replace("\\", "/")).parts
        last = PurePosixPath(parts[-1])
        stems = {last.name.casefold()}
        if last.suffix.lower() in _PICTURES or last.name.lower().endswith(_VOLUMES):
            stems.add(_stem(last.name).casefold())
        matches = [
            (image, theirs)
            for stem in stems
            for image, theirs in self._by_stem.get(stem, ())
            if _within(parts[:-1], theirs[:-1])
        ]
        for same in (
            lambda own: own == last.name,
            lambda own: own.casefold() == last.name.casefold(),
        ):
            if best := [(image, theirs) for image, theirs in matches if same(theirs[-1])]:
                matches = best
                break
        if not matches:
            raise ValueError(f"no image {name!r} is read here. Correct it, or remove the line.")
        if len(matches) > 1:
            fitting = " or ".join("/".join(theirs) for _, theirs in matches[:2])
            raise ValueError(f"{name!r} may be {fitting}. Write the whole of it.")
        return matches[0][0]


def _read(path: Path) -> tuple[Iterator[TableRow], str, str]:
    """The rows, and the columns of the file name and of the patient."""
    headers = {delimiter: read_header(path, delimiter=delimiter) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda one: _fit(headers[one]))
    columns = [_column(path, headers[delimiter], known) for known in (_FILES, _PATIENTS)]
    file_column, patient_column = columns
    table = read_table(
        path,
        dict.fromkeys(columns, ColumnKind.TEXT),
        delimiter=delimiter,
        private=(patient_column,),
    )
    if not table.rows:
        raise UserError(f"{path}: lists no image. Give a line for each.")
    return iter(table), file_column, patient_column


def _fit(header: Sequence[str]) -> tuple[int, int]:
    """Which delimiter it was: the one that lets most columns be understood."""
    plain = [_plain(name) for name in header]
    known = sum(any(name in plain for name in names) for names in (_FILES, _PATIENTS))
    return known, len(header)


def _column(path: Path, header: Sequence[str], accepted: Sequence[str]) -> str:
    columns = [name for name in header if _plain(name) in accepted]
    if len(columns) == 1:
        return columns[0]
    what = "file names" if accepted is _FILES else "patients"
    if not columns:
        listed = ", ".join(name for name in header if name)
        raise UserError(f"{path}: no column of {what}. {_EXPECTED}. It has: {listed}.")
    raise UserError(
        f"{path}: {' and '.join(map(repr, columns))} may each be the column of {what}. "
        "Rename or remove all but one."
    )


def _plain(header: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", header)).casefold()


def _composed(name: str) -> str:
    """Some file systems give accents as characters of their own."""
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    """Without the extension, of which a compressed volume has two."""
    path = PurePosixPath(name)
    return PurePosixPath(path.stem).stem if name.lower().endswith(_VOLUMES[1]) else path.stem


def _within(listed: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether the two chains of folders agree as far as both go, from the image upwards."""
    pairs = zip(reversed(listed), reversed(folders), strict=False)
    return all(a.casefold() == b.casefold() for a, b in pairs)


def _spellings(path: Path, groups: Iterable[dict[str, int]]) -> Iterator[str]:
    """One warning for all patients whose id comes in several spellings."""
    odd = [list(spelt.values()) for spelt in groups if len(spelt) > 1]
    if not odd:
        return
    shown = "; ".join(" and ".join(map(str, lines[:2])) for lines in odd[:_LISTED])
    more = f"; and {len(odd) - _LISTED} more" if len(odd) > _LISTED else ""
    yield (
        f"{path}: ids that differ in case, blanks or leading zeros alone are taken as one patient "
        f"(lines {shown}{more}). Where they are different people, give them other ids."
    )
