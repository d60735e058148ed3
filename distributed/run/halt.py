"""Interrupting a sweep: by Ctrl-C, a job scheduler, or failing storage.

Running epochs finish first; only accepted results count, so that the sweep can be resumed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trustsweep.data_pipelines.errors import StorageError

#: By a person or a scheduler of jobs; Slurm, Kubernetes and Ray send SIGTERM before they kill.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TUNES_OWN = "TUNE_DISABLE_SIGINT_HANDLER"


class Halt:
    """Whether the sweep is to stop, and why. The first reason stands."""

    def __init__(self) -> None:
        self.reason = ""
        self.interrupted = False

    def __bool__(self) -> bool:
        return bool(self.reason)

    def request(self, reason: str) -> None:
        """Stop after the epochs under way."""
        self.reason = self.reason or reason


#: Exit code of a process that Ctrl-C has ended, as shells have it.
INTERRUPTED = 130


class Halted(Exception):
    """A sweep was interrupted; nothing that had finished is lost.

    Attributes:
        resume: The command that resumes it.
        code: Exit code of the command line.
    """

    def __init__(self, reason: str, resume: str, code: int) -> None:
        super().__init__(reason)
        self.resume = resume
        self.code = code


def outside(error: BaseException) -> str | None:
    """Why, in one line, if it is no fault of what was computed; None if it may be.

    That is a disk, a storage or a network that fails, or a node that Ray has lost.
    """
    from ray.exceptions import RayError, RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    lost = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    if not (lost or isinstance(error, (OSError, StorageError))):
        return None
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


@contextmanager
def on_signals(halt: Halt, say: Callable[[str], None]) -> Iterator[None]:
    """Let Ctrl-C (and SIGTERM) halt; a second one raises KeyboardInterrupt at once.

    Only the main thread can have it so; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if halt.interrupted:
            raise KeyboardInterrupt
        halt.interrupted = True
        halt.request(f"interrupted ({signal.Signals(number).name})")
        say("Finishing the epoch; Ctrl-C again to leave at once.")

    # Tune would set up its own, which ends in the middle of an epoch.
    before = os.environ.get(_TUNES_OWN)
    os.environ[_TUNES_OWN] = "1"
    old = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        if before is None:
            del os.environ[_TUNES_OWN]
        else:
            os.environ[_TUNES_OWN] = before


@contextmanager
def on_threads(halt: Halt) -> Iterator[None]:
    """Let a thread halt that dies of its surroundings, as TensorBoard's writer on a full disk."""
    before = threading.excepthook

    def handle(died: threading.ExceptHookArgs) -> None:
        reason = None if died.exc_value is None else outside(died.exc_value)
        if reason is None:
            before(died)
        else:
            halt.request(reason)

    threading.excepthook = handle
    try:
        yield
    finally:
        threading.excepthook = before
