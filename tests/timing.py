"""How a function's time grows with its text, measured so that a busy machine does not decide the result."""

import gc
import time
from collections.abc import Callable

MOST = 15  # times as long for ten times the text: 10 is linear, 100 is quadratic
LONGER = 10  # a pair that fails is judged by texts this many times as long
TURNS = 15  # looks at both lengths, in turn; a quadratic function fails every one of them
PATIENCE = 10  # CPU seconds: after this, a function that has failed every look so far is believed
LEAST = 0.002  # CPU seconds: a shorter time is as much noise as work


def seconds(work: Callable[[str], object], text: str) -> float:
    """CPU seconds of one call. The garbage collector is off, as in `timeit`: its cost grows with the whole process."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        begun = time.process_time()
        work(text)
        return time.process_time() - begun
    finally:
        if collecting:
            gc.enable()


def growth(work: Callable[[str], object], make: Callable[[int], str], short: int, long: int) -> tuple[float, float, bool]:
    """The least CPU seconds that `work` took on two texts, and whether the longer took at most MOST times as long.

    `make(n)` is a text of about n characters. Where the pair of `short` and `long` fails, the pair LONGER times as long
    decides: a text that outgrows a cache or meets the allocator's bound for large blocks (128 KiB) costs up to twice as
    much a character, but only once, while a function that is worse than linear is further off at every longer pair.
    """
    first, taken, linear = _pair(work, make(short), make(long))
    if linear:
        return first, taken, True
    return _pair(work, make(short * LONGER), make(long * LONGER))


def _pair(work: Callable[[str], object], short: str, long: str) -> tuple[float, float, bool]:
    """Look at both texts in turn until their least times agree with MOST, or TURNS or PATIENCE is used up.

    Other processes only ever add to a time, so the least of several is the nearest to the work itself.
    """
    least_short = least_long = float("inf")
    spent, turn = 0.0, 0
    while turn < TURNS and (turn < 2 or spent < PATIENCE):
        one, ten = seconds(work, short), seconds(work, long)
        least_short, least_long = min(least_short, one), min(least_long, ten)
        spent, turn = spent + one + ten, turn + 1
        if least_long <= max(MOST * least_short, LEAST):
            return least_short, least_long, True
    return least_short, least_long, False
