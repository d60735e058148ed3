"""States and models on disk: the newest whole one counts, half a file never does."""

import json

import pytest
import torch

from trustsweep.distributed.run.checkpoints import (
    CARD,
    MODEL,
    Best,
    discard_states,
    find_best,
    finished_card,
    latest_epochs,
    load_best,
    load_model,
    load_state,
    save_best,
    save_model,
    save_state,
)


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((64,), value), "count": torch.tensor(3)}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_newest_two_states_are_kept_and_the_newest_is_found(tmp_path):
    folder = tmp_path / "trial"
    assert latest_epochs(folder) == 0
    for epochs in range(1, 12):
        save_state(folder, state(epochs), epochs)
        assert latest_epochs(folder) == epochs
        assert len(names(folder)) <= 2
    for epochs in (10, 11):
        loaded = load_state(folder, epochs)
        assert torch.equal(loaded["weights"], state(epochs)["weights"])


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 40, -1])
def test_a_truncated_state_is_passed_over(tmp_path, keep):
    for epochs in (1, 2):
        save_state(tmp_path, state(epochs), epochs)
    newest = tmp_path / "state-00002.safetensors"
    newest.write_bytes(newest.read_bytes()[:keep])
    assert latest_epochs(tmp_path) == 1
    save_state(tmp_path, state(2), 2)
    assert latest_epochs(tmp_path) == 2


def test_where_no_state_is_whole_a_trial_begins_anew(tmp_path):
    (tmp_path / "state-00003.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "state-00004.safetensors.partial").write_bytes(b"half")
    assert latest_epochs(tmp_path) == 0


def test_a_finished_model_is_kept_with_its_card_and_its_states_go(tmp_path):
    network = torch.nn.Linear(3, 2)
    save_state(tmp_path, state(1), 1)
    assert finished_card(tmp_path) is None
    card = {"id": "a", "config": {"lr": 0.1}, "metrics": {"dice": 0.5, "ece": 0.25}}
    save_model(tmp_path, network, card)
    assert names(tmp_path) == sorted([CARD, MODEL])
    assert finished_card(tmp_path) == card
    assert json.loads((tmp_path / CARD).read_text()) == card
    other = torch.nn.Linear(3, 2)
    load_model(tmp_path, other)
    assert torch.equal(other.weight, network.weight)


def test_the_best_epoch_is_kept_beside_the_states_and_goes_with_them(tmp_path):
    networks = [torch.nn.Linear(3, 2) for _ in range(3)]
    assert find_best(tmp_path) is None
    save_state(tmp_path, state(1), 1)
    for epoch, network in enumerate(networks[:2], 1):
        save_best(tmp_path, network, Best(epoch, 1 / epoch))
    assert find_best(tmp_path) == Best(2, 0.5)
    load_best(tmp_path, networks[2])
    assert torch.equal(networks[2].weight, networks[1].weight)
    assert latest_epochs(tmp_path) == 1
    save_model(tmp_path, networks[2], {"metrics": {}})
    assert names(tmp_path) == sorted([CARD, MODEL])
    (tmp_path / "best.safetensors").write_bytes(b"half")
    assert find_best(tmp_path) is None


def test_a_model_without_its_card_is_not_finished(tmp_path):
    """The card is written last: a kill between the two leaves the states to go on from."""
    save_state(tmp_path, state(4), 4)
    (tmp_path / MODEL).write_bytes(b"any")
    assert finished_card(tmp_path) is None
    assert latest_epochs(tmp_path) == 4


def test_discarding_removes_states_and_the_folder_they_were_alone_in(tmp_path):
    folder = tmp_path / "trial"
    discard_states(folder)  # that was never there
    save_state(folder, state(1), 1)
    discard_states(folder)
    assert not folder.exists()
    save_state(folder, state(1), 1)
    (folder / "notes.txt").write_text("mine")
    discard_states(folder)
    assert names(folder) == ["notes.txt"]
