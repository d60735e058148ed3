"""Signals: the first halts, the second leaves at once, and what was there before comes back."""

import os
import signal
import threading

import pytest

from trustsweep.distributed.run.halt import Halt, on_signals, on_threads


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_halts_and_the_second_leaves(number):
    halt, said = Halt(), []
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with on_signals(halt, said.append):
        assert not halt
        assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
        signal.raise_signal(number)
        assert halt
        assert halt.interrupted
        assert halt.reason == f"interrupted ({number.name})"
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("set_before", [None, "0"])
def test_handlers_and_environment_come_back_after_an_error(monkeypatch, set_before):
    key = "TUNE_DISABLE_SIGINT_HANDLER"
    monkeypatch.delenv(key, raising=False)
    if set_before is not None:
        monkeypatch.setenv(key, set_before)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), on_signals(Halt(), print):
        1 / (signal.getsignal(signal.SIGINT) is before)
    assert signal.getsignal(signal.SIGINT) is before
    assert os.environ.get(key) == set_before


def test_another_thread_than_the_main_one_changes_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with on_signals(Halt(), print):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_first_reason_stands_and_only_a_signal_interrupts():
    halt = Halt()
    halt.request("the disk is full")
    halt.request("storage is away")
    assert halt.reason == "the disk is full"
    assert not halt.interrupted


def test_a_thread_that_dies_of_its_surroundings_halts_and_one_of_its_own_is_told(monkeypatch):
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def die_of(error: Exception) -> Halt:
        def die() -> None:
            raise error

        halt = Halt()
        with on_threads(halt):
            thread = threading.Thread(target=die)
            thread.start()
            thread.join()
        return halt

    assert die_of(OSError(28, "No space left on device")).reason.endswith("No space left on device")
    assert not told
    assert not die_of(ValueError("a defect"))
    assert [died.exc_type for died in told] == [ValueError]
    assert threading.excepthook == told.append
