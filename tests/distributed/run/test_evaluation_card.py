"""Evaluation cards: what is written comes back typed, and nothing else is taken for a card."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.run_folders import write_card
from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.run.evaluation_card import CARD_VERSION, EvaluationCard, read_cards
from trustsweep.distributed.statistics.inference import Estimate

CONTENT: dict[str, Any] = {
    "id": "m",
    "metrics": {"clean.ece": math.nan, "clean.dice": 0.5},
    "config": {"width": 16, "rate": 1.0, "augment": False, "encoder": ""},
    "estimates": {
        "test": {
            "images": 9, "patients": 4, "sites": 1,
            "figures": {"clean.dice": {"value": 0.5, "low": 0.4, "high": math.nan}},
        },
    },
}  # fmt: skip


def changed(path: Path, **changes: Any) -> Path:
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    return path


def test_a_card_comes_back_with_its_types(tmp_path: Path) -> None:
    card = EvaluationCard.read(write_card(tmp_path, CONTENT))
    assert card.version == CARD_VERSION
    assert card.on_test
    types = {key: type(value) for key, value in card.config.items()}
    assert types == {"width": int, "rate": float, "augment": bool, "encoder": str}
    assert math.isnan(card.metrics["clean.ece"])
    found = card.estimates["test"].figures["clean.dice"]
    assert isinstance(found, Estimate)
    assert (found.value, found.low, math.isnan(found.high)) == (0.5, 0.4, True)
    assert (card.panel, card.samples, card.signs, card.fully_attacked) == ({}, None, {}, False)
    assert read_cards(tmp_path / "evaluation").keys() == {"m"}
    assert read_cards(tmp_path / "elsewhere") == {}


def test_the_table_of_samples_is_named_by_its_path(tmp_path: Path) -> None:
    path = write_card(tmp_path, CONTENT)
    table = path.with_suffix(".parquet")
    table.write_bytes(b"")
    assert EvaluationCard.read(path).samples == table


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": None}, "no version stated"),
        ({"version": CARD_VERSION + 1}, f"version {CARD_VERSION + 1}"),
        ({"fairness": {}}, "fairness: extra inputs are not permitted"),
        ({"metrics": None}, "metrics: field required"),
        ({"attack": {"name": "pgd"}}, "attack.name: "),
    ],
)
def test_a_card_of_another_version_is_refused_in_a_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = changed(write_card(tmp_path, CONTENT), **changes)
    with pytest.raises(UserError) as refused:
        EvaluationCard.read(path)
    line = str(refused.value)
    assert line.startswith(f"{path}: an evaluation card of another version ({words}")
    assert f"reads version {CARD_VERSION}" in line
    assert line.endswith(f"trustsweep sweep --resume {tmp_path}")
    assert "\n" not in line


def test_what_is_no_card_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown"):
        write_card(tmp_path, {**CONTENT, "unknown": 1})
    assert not list((tmp_path / "evaluation").iterdir())


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"m\.json: "):
        EvaluationCard.read(path)
