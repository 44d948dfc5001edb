"""The one exception that is meant for the user's eyes, and how a command line ends on it."""

import functools
import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2  # a message with a remedy was printed


class UserError(Exception):
    """Something the user can put right: bad input, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, line or key) and what to do. The scripts print it without a
    traceback and exit with code 2; anything else that is raised is a defect of ours and keeps its traceback.
    """


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """A command line's `main` that returns the exit code: 0 (or its own) when done, 2 and a message on a UserError."""

    @functools.wraps(main)
    def guarded(*words: list[str] | None) -> int:
        try:
            return main(*words) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_USER_ERROR

    return guarded
