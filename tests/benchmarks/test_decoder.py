"""The comparison of decoders, small: what it writes, and that it goes on where it was ended."""

import json
import sys

import pytest
from decoder import COST, METRICS, PICTURE, ROWS, main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs it in one folder, as often as it is called; returns the folder and its figures."""
    out = tmp_path_factory.mktemp("decoder")
    words = ["decoder.py", "--quick", "--out", out, "--table", out / "decoder.md"]

    def call():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(w) for w in (*words, "--json", out / "figures.json")])
            main()
        return out, json.loads((out / "figures.json").read_text())

    return call


def test_every_training_is_a_row_and_both_decoders_have_the_same_parameters(run):
    out, figures = run()
    names = [(row["seed"], row["decoder"]) for row in figures["rows"]]
    assert names == [(s, d) for s in (0, 1) for d in ("transposed", "interpolated")]
    assert len({row["parameters"] for row in figures["rows"]}) == 1
    for test in figures["tests"]:
        old, new = (
            [r["test"][test["metric"]] for r in figures["rows"] if r["decoder"] == d]
            for d in ("transposed", "interpolated")
        )
        assert test["difference"] == pytest.approx((sum(new) - sum(old)) / 2)
    text = (out / "decoder.md").read_text()
    assert all(heading in text for heading in METRICS.values())
    assert (out / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_one_decoder_leaves_a_grid_and_the_other_none(run):
    _, figures = run()
    for row in figures["rows"]:
        shares = {kind: row["untrained"][kind] / row["truth"][kind] for kind in row["truth"]}
        assert all((share > 1) == (row["decoder"] == "transposed") for share in shares.values())


def test_a_second_call_trains_what_is_missing_alone_and_gives_the_same(run):
    out, figures = run()
    kept = (out / ROWS).read_text().splitlines()
    cost = (out / COST).read_text()
    (out / ROWS).write_text("\n".join(kept[:-1]) + "\n")
    again = run()[1]
    assert (out / ROWS).read_text().splitlines() == kept
    assert again["rows"] == figures["rows"]
    assert (out / COST).read_text() == cost


def test_without_the_published_folders_it_says_what_is_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["decoder.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "--data is needed" in capsys.readouterr().err
