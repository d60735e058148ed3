"""Events and images of MIMIC find their stays: against loops, in threads, in little memory."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from trustsweep.data_pipelines.layouts.mimic.alignment import (
    BEFORE,
    HOUR,
    before,
    covering,
    images_of,
)
from trustsweep.data_pipelines.layouts.mimic.events import EventStore, Span
from trustsweep.data_pipelines.layouts.mimic.items import (
    CHANNELS,
    INDEX,
    LABS,
    VITALS,
    channels_of,
    in_unit,
)
from trustsweep.data_pipelines.layouts.mimic.tables import IcuStay, Image, MimicPatient

START = 4_102_444_800  # 2100-01-01


def _stay(subject: int, number: int, start: int, end: int) -> IcuStay:
    return IcuStay(
        line=2, subject=subject, admission=number, stay_id=number, unit=None, start=start, end=end
    )


def _stamp(second: int) -> str:
    return str(datetime(1970, 1, 1) + timedelta(seconds=int(second)))


def _write(path: Path, owner: str, rows: list[tuple[int, int, int, float]]) -> Path:
    """(owner, second, itemid, value)"""
    lines = [f"{o},{_stamp(second)},{item},{value}" for o, second, item, value in rows]
    path.write_text(f"{owner},charttime,itemid,valuenum\n" + "".join(f"{n}\n" for n in lines))
    return path


def test_every_item_belongs_to_one_channel():
    items = [item for channel in CHANNELS.values() for item in channel.items]
    assert len(items) == len(set(items))
    for names in (VITALS, LABS):
        found, channels = channels_of(names)
        assert (np.diff(found) > 0).all()
        for item, channel in zip(found, channels, strict=True):
            assert item in [*CHANNELS.values()][channel].items


@given(st.floats(-40, 200))
def test_fahrenheit_alone_is_converted(value):
    items = np.array([223761, 223762, 220045])
    converted = in_unit(items, np.full(3, value))
    assert converted[0] * 9 / 5 + 32 == pytest.approx(value, abs=1e-9)
    assert (converted[1:] == value).all()


# Hours since START, and lengths; two patients.
_stays = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=5
)
_times = st.lists(st.tuples(st.integers(1, 3), st.integers(-2, 40)), max_size=25)


def _laid_out(lengths: list[tuple[int, int, int]]) -> list[IcuStay]:
    """One after the other, as no patient is in two ICUs at once."""
    ends: dict[int, int] = {}
    stays = []
    for number, (subject, gap, length) in enumerate(lengths):
        start = ends.get(subject, START) + (gap + 1) * HOUR
        ends[subject] = start + length * HOUR
        stays.append(_stay(subject, 30 + number, start, ends[subject]))
    return stays


@given(_stays, _times)
def test_laboratory_values_lie_in_the_stay_within_which_they_were_taken(
    tmp_path_factory, lengths, times
):
    folder = tmp_path_factory.mktemp("events")
    stays = _laid_out(lengths)
    rows = [(who, START + hour * HOUR, 50912, float(i)) for i, (who, hour) in enumerate(times)]
    store = EventStore(
        _write(folder / "chart.csv", "stay_id", []),
        _write(folder / "lab.csv", "subject_id", rows),
        {stay: Span(0, stay.end - stay.start) for stay in stays},
    )
    for stay in stays:
        found = store.of(stay)
        expected = [
            (second - stay.start, value)
            for who, second, _, value in rows
            if who == stay.subject and stay.start <= second < stay.end
        ]
        assert list(zip(found["second"], found["value"], strict=True)) == expected
        assert (found["channel"] == INDEX["creatinine"]).all()


@given(_stays, _times)
def test_an_image_lies_in_the_stay_that_covers_it(lengths, times):
    stays = _laid_out(lengths)
    for who, hour in times:
        image = Image(START + hour * HOUR, "name", who, 5)
        mine = sorted((s for s in stays if s.subject == who), key=lambda s: s.start)
        found = covering(image, mine)
        naive = [s for s in mine if s.start <= image.second <= s.end]
        assert found == (naive[-1] if naive else None)
        if found is not None:
            window = before(image, found, 3)
            assert found.start <= window.first <= window.last == image.second
            assert window.last - window.first <= 3 * HOUR


@given(st.lists(st.integers(-60, 100), max_size=20), st.integers(1, 60), st.integers(1, 72))
def test_images_of_a_stay_are_those_in_time(hours, length, window):
    stay = _stay(1, 30, START, START + length * HOUR)
    images = sorted(Image(START + hour * HOUR, f"{i}", 1, 5) for i, hour in enumerate(hours))
    last = START + min(length, window) * HOUR
    naive = [i for i in images if START - BEFORE <= i.second < last]
    assert list(images_of(stay, window, images)) == naive


@pytest.mark.parametrize(
    ("anchor", "years", "age"), [(40, 0, 40), (40, 7, 47), (88, 1, 89), (88, 2, 91), (91, -5, 91)]
)
def test_age(anchor, years, age):
    second = int((datetime(2150 + years, 6, 1) - datetime(1970, 1, 1)).total_seconds())
    assert MimicPatient("male", anchor, 2150).age(second) == age
    assert MimicPatient("male", None, 2150).age(second) is None


def test_threads_see_the_same_rows(tmp_path):
    # More stays than a few buckets of the spool hold.
    stays = [_stay(number, number, START, START + 9 * HOUR) for number in range(1, 6001)]
    charts = [(s.stay_id, START + 60 * (s.stay_id % 500), 220045, s.stay_id) for s in stays]
    store = EventStore(
        _write(tmp_path / "chart.csv", "stay_id", charts),
        _write(tmp_path / "lab.csv", "subject_id", []),
        {stay: Span(0, 9 * HOUR) for stay in stays},
    )
    order = np.random.default_rng(1).permutation(len(stays))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: store.of(stays[place]), order[:800]))
    for place, rows in zip(order[:800], found, strict=True):
        assert rows["value"].tolist() == [stays[place].stay_id]
        assert rows["second"].tolist() == [60 * (stays[place].stay_id % 500)]


#: Reads the events of 40 stays; says how many rows they have, and by how many bytes memory grew.
_READ = """
import resource, sys
from pathlib import Path
from trustsweep.data_pipelines.layouts.mimic.events import EventStore, Span
from trustsweep.data_pipelines.layouts.mimic.tables import IcuStay

def grown(charts):
    stays = [IcuStay(2, n, n, n, None, 4_102_444_800, 4_102_448_400) for n in range(1, 41)]
    store = EventStore(charts, Path(sys.argv[3]), {stay: Span(0, 3600) for stay in stays})
    rows = sum(len(store.of(stay)) for stay in stays)
    return rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

_, before = grown(Path(sys.argv[1]))
rows, after = grown(Path(sys.argv[2]))
print(rows, after - before)
"""


@pytest.mark.slow
def test_a_table_far_larger_than_a_batch_takes_little_memory(tmp_path):
    count, block = 4_000_000, 2**22
    draw = np.random.default_rng(3)
    stay_id = draw.integers(1, 4001, count)
    same = np.zeros(count, np.int64)
    table = pa.table(
        {
            "stay_id": stay_id,
            "charttime": pa.array([_stamp(START + 60)]).take(same),
            "itemid": draw.choice([220045, 220210, 226730], count),
            "valuenum": np.full(count, 80.0),
            "comment": pa.array(["as before"]).take(same),
        }
    )
    path = tmp_path / "chart.csv"
    arrow_csv.write_csv(table, path)
    kept = np.isin(table["itemid"].to_numpy(), [220045, 220210]) & (stay_id <= 40)
    # Two blocks bring the libraries to what they hold for any table.
    arrow_csv.write_csv(table.slice(0, 400_000), tmp_path / "few.csv")
    assert (tmp_path / "few.csv").stat().st_size > 2 * block
    labs = _write(tmp_path / "lab.csv", "subject_id", [])
    command = [sys.executable, "-c", _READ, *map(str, (tmp_path / "few.csv", path, labs))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, growth = map(int, done.stdout.split())
    assert rows == kept.sum()
    assert growth < path.stat().st_size / 4
