"""Signals that ask a run to end: it writes a checkpoint within a step, and the same command resumes it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import EXIT_INTERRUPT
from common.launch import EXIT_REQUEUE

# Exit code of each: SIGTERM and SIGUSR1 come from a scheduler, SIGINT from Ctrl-C.
STOP_SIGNALS = {signal.SIGTERM: EXIT_REQUEUE, signal.SIGUSR1: EXIT_REQUEUE, signal.SIGINT: EXIT_INTERRUPT}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The signals received during the block, in order. A second Ctrl-C raises KeyboardInterrupt at once."""
    stop: list[int] = []

    def received(number: int, _frame: Any) -> None:
        if number == signal.SIGINT and number in stop:
            raise KeyboardInterrupt
        stop.append(number)

    before = {number: signal.signal(number, received) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:  # a sweep runs several jobs in this process
        for number, handler in before.items():
            signal.signal(number, handler)
