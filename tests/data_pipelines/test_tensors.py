"""Arrays in columns come back as they went in, in every type, sliced and taken."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trustsweep.data_pipelines.tensors import (
    described,
    packed,
    shape_of,
    shaped,
    tensor_field,
    unpacked,
)

ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.float16, np.float32]),
    hnp.array_shapes(min_dims=2, max_dims=5, max_side=5),
)


@given(ARRAYS, st.data())
def test_round_trip_through_parquet_slices_and_takes(arrays, data):
    field = tensor_field("image", arrays[0])
    table = pa.table([packed(arrays, field)], schema=pa.schema([field]))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    table = pq.read_table(pa.BufferReader(sink.getvalue()))
    start = data.draw(st.integers(0, len(arrays) - 1))
    order = data.draw(st.permutations(range(start, len(arrays))))
    for rows, expected in (
        (table.slice(start), arrays[start:]),
        (table.take(pa.array(order)), arrays[order]),
    ):
        column = rows["image"].combine_chunks()
        seen = unpacked(column, described(table.schema.field("image")))
        np.testing.assert_array_equal(seen, expected)
        assert seen.dtype == arrays.dtype
        np.testing.assert_array_equal(
            shaped(rows)["image"].combine_chunks().to_numpy_ndarray(), expected
        )


def test_a_description_says_type_and_shape():
    field = tensor_field("image", np.zeros((4, 2, 3), np.uint8), "float16")
    assert described(field) == "float16[4, 2, 3]"
    assert shape_of(described(field)) == (np.dtype("float16"), (4, 2, 3))
    assert described(pa.field("age", pa.float32())) == "float"


def test_views_share_the_column_s_memory():
    arrays = np.arange(24, dtype=np.uint8).reshape(4, 6)
    field = tensor_field("x", arrays[0])
    column = packed(arrays, field)
    seen = unpacked(column.slice(1, 2), described(field))
    assert np.shares_memory(seen, arrays)
    tensors = shaped(pa.table([column], schema=pa.schema([field])))["x"].chunk(0)
    assert np.shares_memory(tensors.to_numpy_ndarray(), arrays)


def test_other_shapes_and_types_are_refused():
    field = tensor_field("image", np.zeros((2, 2), np.uint8))
    for wrong in (np.zeros((3, 2, 3), np.uint8), np.zeros((3, 2, 2), np.float32)):
        with pytest.raises(ValueError, match=r"image: .*, not uint8\[2, 2\]"):
            packed(wrong, field)
