"""Tables: pandas-like files come back typed, and whatever is wrong is named by line and column."""

import csv
import gzip
import io
import resource

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers import records, tables
from trustsweep.data_pipelines.readers.tables import ColumnKind, read_table, stream_table

COLUMNS = {
    "id": ColumnKind.INTEGER,
    "name": ColumnKind.TEXT,
    "age": ColumnKind.NUMBER,
    "ill": ColumnKind.BOOLEAN,
}
WHOLE = "id,name,age,ill\n1,ann,40.5,yes\n2,,,\n3,bob,-1e2,0\n"


def _write(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _streamed(path, columns, **options):
    """As `read_table`'s values, so that both can be compared."""
    batches = list(stream_table(path, columns, **options))
    return [row for batch in batches for row in batch.to_pylist()]


def _both(path, columns, **options):
    rows = [dict(row.values) for row in read_table(path, columns, **options)]
    assert _streamed(path, columns, **options) == rows
    return rows


def _refused(path, columns, match, **options):
    """Both ways of reading say the same."""
    with pytest.raises(BadFile, match=match) as read:
        read_table(path, columns, **options)
    with pytest.raises(BadFile) as streamed:
        _streamed(path, columns, **options)
    assert str(read.value) == str(streamed.value)
    assert read.value.path == path
    return str(read.value)


def test_every_kind_comes_back(tmp_path):
    table = read_table(_write(tmp_path, WHOLE), COLUMNS)
    assert [tuple(row.values.values()) for row in table] == [
        (1, "ann", 40.5, True),
        (2, None, None, None),
        (3, "bob", -100.0, False),
    ]
    assert [row.line for row in table] == [2, 3, 4]
    assert table.header == ("id", "name", "age", "ill")
    assert len(table) == 3
    assert table.rows[0]["age"] == 40.5


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_line_ends_and_gzip_change_nothing(tmp_path, pack, begin, end):
    path = _write(tmp_path, pack(begin + WHOLE.replace("\n", end).encode()))
    assert [row["id"] for row in _both(path, COLUMNS)] == [1, 2, 3]


def test_streams_have_types_and_bounded_batches(tmp_path):
    path = _write(tmp_path, "id,name,age,ill\n" + "7,x,1,1\n" * 1000)
    batches = list(stream_table(path, COLUMNS, batch_rows=300))
    assert [batch.num_rows for batch in batches] == [300, 300, 300, 100]
    assert batches[0].schema == pa.schema(
        {"id": pa.int64(), "name": pa.string(), "age": pa.float64(), "ill": pa.bool_()}
    )


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1) | st.none(),
            TEXT.filter(bool) | st.none(),
            st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        ),
        max_size=6,
    ),
    delimiter=st.sampled_from(",\t;"),
)
def test_what_csv_writes_comes_back(tmp_path, rows, delimiter):
    """Both ways, with quotes, delimiters and line ends inside of texts."""
    content = io.StringIO(newline="")
    writer = csv.writer(content, delimiter=delimiter)
    writer.writerow(["whole", "text", "number"])
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    path = _write(tmp_path, content.getvalue())
    kinds = {"whole": ColumnKind.INTEGER, "text": ColumnKind.TEXT, "number": ColumnKind.NUMBER}
    found = _both(path, kinds, delimiter=delimiter)
    assert [tuple(row.values()) for row in found] == rows


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ColumnKind.INTEGER, "007", 7),
        (ColumnKind.INTEGER, "5.0", 5),
        (ColumnKind.INTEGER, "+5", 5),
        (ColumnKind.INTEGER, " 5 ", 5),
        (ColumnKind.INTEGER, str(2**60 + 1), 2**60 + 1),
        (ColumnKind.INTEGER, "1e3", 1000),
        (ColumnKind.INTEGER, "0x1F", None),
        (ColumnKind.INTEGER, "5.5", None),
        (ColumnKind.INTEGER, str(2**63), None),
        (ColumnKind.INTEGER, "1_000", None),
        (ColumnKind.INTEGER, "٣", None),
        (ColumnKind.NUMBER, ".5", 0.5),
        (ColumnKind.NUMBER, "5.", 5.0),
        (ColumnKind.NUMBER, "-1E-3", -0.001),
        (ColumnKind.NUMBER, "nan", None),
        (ColumnKind.NUMBER, "inf", None),
        (ColumnKind.NUMBER, "1e999", None),
        (ColumnKind.NUMBER, "1,5", None),
        (ColumnKind.NUMBER, "12 cm", None),
        (ColumnKind.BOOLEAN, "True", True),
        (ColumnKind.BOOLEAN, "N", False),
        (ColumnKind.BOOLEAN, "2", None),
    ],
)
def test_spellings(tmp_path, kind, text, value):
    path = _write(
        tmp_path, f'first,x\na,{"1" if kind is ColumnKind.BOOLEAN else "3"}\nb,"{text}"\n'
    )
    if value is None:
        _refused(path, {"x": kind}, rf"line 3, column 'x': .* is no {kind}")
    else:
        assert _both(path, {"x": kind})[1]["x"] == value


def test_other_marks_of_missing_values(tmp_path):
    path = _write(tmp_path, "a,b,c\n?,NaN,x\n,1,?\n")
    kinds = {"a": ColumnKind.INTEGER, "b": ColumnKind.NUMBER, "c": ColumnKind.TEXT}
    found = _both(path, kinds, missing=("", "?", "NaN"))
    assert found == [{"a": None, "b": None, "c": "x"}, {"a": None, "b": 1.0, "c": None}]


def test_files_without_a_header(tmp_path):
    path = _write(tmp_path, "1,2\n3,4\n")
    found = read_table(path, {"b": ColumnKind.INTEGER}, header=["a", "b"])
    assert [(row.line, row["b"]) for row in found] == [(1, 2), (2, 4)]
    assert _both(path, {"b": ColumnKind.INTEGER}, header=["a", "b"]) == [{"b": 2}, {"b": 4}]


def test_lines_are_counted_over_quoted_line_ends_and_empty_lines(tmp_path):
    path = _write(tmp_path, '\nid,note\n1,"two\nlines"\n\n\n2,x\nthree,y\n')
    message = _refused(
        path, {"id": ColumnKind.INTEGER, "note": ColumnKind.TEXT}, "line 8, column 'id'"
    )
    assert "'three' is no whole number" in message


def test_missing_columns_come_with_the_nearest(tmp_path):
    path = _write(tmp_path, WHOLE)
    _refused(
        path,
        {"agee": ColumnKind.NUMBER},
        r"no column 'agee', did you mean 'age'\? It has: id, name",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,name\n1\n", "line 2: 1 fields where 2 columns are named"),
        ("id,name\n1,a,b\n", "line 2: 3 fields where 2 columns"),
        ('id,name\n1,a\n2,"b\n', "line 3: unexpected end of data"),
        ("id,id,name\n1,2,a\n", "several columns 'id'"),
        ("\n\n", "no line names the columns"),
        (b"id,name\n1,a\n2,\xff\n", "line 3: not UTF-8"),
        (b"id,name\n1,a\n2,\0\n", "line 3: a zero byte"),
        ("id,name\n1,a\n".encode("utf-16"), "UTF-16 text. Save it as UTF-8"),
        (gzip.compress(WHOLE.encode(), mtime=0)[:-12], "damaged or truncated"),
        (gzip.compress(WHOLE.encode(), mtime=0)[:-5] + b"12345", "damaged or truncated"),
        (b"", "the file is empty"),
    ],
)
def test_damage_is_named(tmp_path, text, reason):
    _refused(_write(tmp_path, text), {"id": ColumnKind.INTEGER, "name": ColumnKind.TEXT}, reason)


def test_empty_fields_behind_the_named_columns_are_passed_over(tmp_path):
    path = _write(tmp_path, "id,name,,\n1,a\n2,b,\n3,c,,\n")
    assert [row["name"] for row in _both(path, {"name": ColumnKind.TEXT})] == ["a", "b", "c"]


def test_required_columns_must_be_filled(tmp_path):
    path = _write(tmp_path, WHOLE)
    _refused(path, COLUMNS, "line 3, column 'age': empty", required=["age"])


def test_repeated_identifiers_are_named_by_line_alone(tmp_path):
    path = _write(tmp_path, "id,x\nsecret1,1\nsecret2,2\nsecret1,3\n")
    with pytest.raises(BadFile, match="line 4, column 'id': the same value as in line 2") as raised:
        read_table(path, {"id": ColumnKind.TEXT}, unique="id")
    assert "secret" not in str(raised.value)
    with pytest.raises(BadFile, match="line 3, column 'id': empty"):
        read_table(_write(tmp_path, "id,x\na,1\n,2\n"), {"id": ColumnKind.TEXT}, unique="id")


def test_private_values_are_not_quoted(tmp_path):
    path = _write(tmp_path, "id,age\nsecret,40\n1,old\n")
    message = _refused(
        path, {"id": ColumnKind.INTEGER}, "line 2, column 'id': a value is no", private=["id"]
    )
    assert "secret" not in message
    assert "'old'" in _refused(path, {"age": ColumnKind.INTEGER}, "line 3, column 'age'")


def test_columns_that_are_not_read_cannot_be_unique(tmp_path):
    with pytest.raises(ValueError, match="not among the columns"):
        read_table(_write(tmp_path, WHOLE), {"id": ColumnKind.TEXT}, unique="name")


def test_a_layouts_own_rules_name_line_and_column(tmp_path):
    table = read_table(_write(tmp_path, WHOLE), COLUMNS)
    problem = table.bad(table.rows[2], "age", "is below 0.")
    assert str(problem) == f"{table.path}: line 4: column 'age' is below 0."


def test_tables_without_rows_are_tables(tmp_path):
    path = _write(tmp_path, "id,name,age,ill\n")
    assert _both(path, COLUMNS) == []


def test_real_tables_are_read(real_data):
    path = real_data / "nih_chestxray14" / "Data_Entry_2017_v2020.csv"
    kinds = {
        "Image Index": ColumnKind.TEXT,
        "Patient Age": ColumnKind.INTEGER,
        "Finding Labels": ColumnKind.TEXT,
    }
    with path.open(encoding="utf-8-sig", newline="") as file:
        oracle = [
            {"Image Index": r["Image Index"], "Patient Age": int(r["Patient Age"])}
            | {"Finding Labels": r["Finding Labels"]}
            for r in csv.DictReader(file)
        ]
    assert len(oracle) == 240
    assert _both(path, kinds) == oracle
    boxes = read_table(
        real_data / "nih_chestxray14" / "BBox_List_2017.csv",
        {"Bbox [x": ColumnKind.NUMBER, "h]": ColumnKind.NUMBER},
    )
    assert len(boxes) == 12


def test_blocks_end_where_records_do(tmp_path, monkeypatch):
    """Texts with quotes and line ends, cut at every possible place."""
    rows = [(str(i), ('a "quoted"\nline,' * (i % 4))[: i % 13]) for i in range(60)]
    content = io.StringIO(newline="")
    csv.writer(content).writerows([("id", "text"), *rows])
    path = _write(tmp_path, content.getvalue())
    for size in (1, 2, 3, 5, 8, 13, 64, 1000):
        monkeypatch.setattr(records, "_BLOCK", size)
        found = _both(path, {"id": ColumnKind.INTEGER, "text": ColumnKind.TEXT})
        assert [(str(row["id"]), row["text"] or "") for row in found] == rows


def test_lines_are_right_in_later_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_BLOCK", 64)
    path = _write(tmp_path, "id\n" + "1\n" * 500 + "x\n")
    _refused(path, {"id": ColumnKind.INTEGER}, "line 502, column 'id'")


def test_a_quote_that_is_not_closed_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'id,text\n1,"')
        for _ in range(24):
            file.write(b"x" * 2**20)
    with pytest.raises(BadFile, match="line 2: goes on for more than 16,777,216 bytes"):
        _streamed(path, {"id": ColumnKind.INTEGER})


def test_streams_of_any_length_need_little_memory(tmp_path):
    """160 MiB of text from a file of less than one."""
    path = tmp_path / "events.csv.gz"
    line = b"10000032,2180-07-23 14:00:00,220045,88,bpm\n"
    part = gzip.compress(line * 50_000)
    path.write_bytes(gzip.compress(b"subject_id,charttime,itemid,valuenum,unit\n") + part * 80)
    columns = {
        "subject_id": ColumnKind.INTEGER,
        "charttime": ColumnKind.TEXT,
        "valuenum": ColumnKind.NUMBER,
    }
    next(stream_table(path, columns))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(batch.num_rows for batch in stream_table(path, columns))
    assert rows == 80 * 50_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**26


def test_tables_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 10_000)
    path = _write(tmp_path, gzip.compress(b"id\n" + b"1\n" * 10_000))
    with pytest.raises(BadFile, match="more than 10,000 bytes of text"):
        read_table(path, {"id": ColumnKind.INTEGER})


def test_a_row_that_repeats_another_counts_once_where_that_is_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,age,note\na,1,x\nb,2,y\na,1,x\na,1,x,\n")
    columns = {"id": ColumnKind.TEXT, "age": ColumnKind.NUMBER}
    table = read_table(path, columns, unique="id", repeats=True)
    assert [row["id"] for row in table] == ["a", "b"]
    assert table.repeated == 2
    assert table.remarks() == ["t.csv: 2 rows repeat an earlier one in every field; left out"]
    with pytest.raises(BadFile, match="line 4, column 'id': the same value as in line 2"):
        read_table(path, columns, unique="id")


@pytest.mark.parametrize("row", ["a,2,x", "a,1,z"])
def test_a_row_that_contradicts_another_is_refused(tmp_path, row):
    """Also where they differ in a column that is not read: which of the two is right is unknown."""
    path = tmp_path / "t.csv"
    path.write_text(f"id,age,note\na,1,x\n{row}\n")
    columns = {"id": ColumnKind.TEXT, "age": ColumnKind.NUMBER}
    with pytest.raises(BadFile, match="line 3, column 'id': the same value as in line 2"):
        read_table(path, columns, unique="id", repeats=True)
