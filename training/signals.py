"""Signals that ask a run to end: it writes a checkpoint within a step, and the same command resumes it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import EXIT_INTERRUPT
from common.launch import EXIT_REQUEUE

# Exit code of each: SIGTERM and SIGUSR1 come from a scheduler, SIGINT from Ctrl-C. SIGUSR2 is submitit's word to a job of a
# sweep whose time is over; it counts only where submitit has set a handler, which requeues the job.
STOP_SIGNALS = {
    signal.SIGTERM: EXIT_REQUEUE,
    signal.SIGUSR1: EXIT_REQUEUE,
    signal.SIGUSR2: EXIT_REQUEUE,
    signal.SIGINT: EXIT_INTERRUPT,
}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The signals received during the block, in order. A second Ctrl-C raises KeyboardInterrupt at once.

    After a SIGUSR2 the handler of before is called once the block has ended and its checkpoint is written: submitit's, which
    otherwise would requeue the job at once, and the steps since the last checkpoint would be lost.
    """
    stop: list[int] = []

    def received(number: int, _frame: Any) -> None:
        if number == signal.SIGINT and number in stop:
            raise KeyboardInterrupt
        stop.append(number)

    requeue = signal.getsignal(signal.SIGUSR2)
    numbers = [number for number in STOP_SIGNALS if number != signal.SIGUSR2 or callable(requeue)]
    before = {number: signal.signal(number, received) for number in numbers}
    asked = True
    try:
        yield stop
    except Exception:
        asked = False  # a run that failed is not started again
        raise
    finally:  # a sweep runs several jobs in this process
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked and signal.SIGUSR2 in stop and callable(requeue):
            requeue(signal.SIGUSR2, None)
