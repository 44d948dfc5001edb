"""The one exception whose message is written for the user, and how a command line ends on it."""

import errno
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

EXIT_USER_ERROR = 2  # a message with a remedy was printed
EXIT_INTERRUPT = 130  # stopped by Ctrl-C (128 + SIGINT, as shells have it)


class UserError(Exception):
    """Something that the user can correct: bad input, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, line or key) and what to do. The scripts print it without a traceback
    and exit with code 2. Any other exception is a defect of the project and keeps its traceback.
    """


class DiskError(UserError, OSError):
    """A file that cannot be written (disk full, quota, read-only, no permission); the message names it and the remedy.

    It is an OSError too, with its errno, so that code that can go on without the file (a checkpoint, a log) can catch it.
    """

    def __str__(self) -> str:
        return str(self.args[0])


_AGAIN = "or choose a folder on another disk, and start again: what is finished is kept."
_REMEDIES = {
    errno.ENOSPC: f"cannot be written: the disk is full. Make room, {_AGAIN}",
    errno.EDQUOT: f"cannot be written: the disk quota is used up. Make room, {_AGAIN}",
    errno.EFBIG: "cannot be written: the file is larger than the limit on files (ulimit -f). Raise the limit and start again.",
    errno.EROFS: "cannot be written: the file system is read-only. Choose another folder.",
    errno.EACCES: "permission is denied. Choose another folder, or give yourself the right to use this one.",
    errno.EPERM: "the operation is not permitted. Choose another folder, or give yourself the right to write there.",
}


def disk_error(error: BaseException, path: str | Path | None = None) -> DiskError | None:
    """`error` as a DiskError about `path` (or about another file that the error names); None for any other error.

    Libraries written in Rust (safetensors, tokenizers) raise errors of their own that end in "(os error 28)".
    """
    if isinstance(error, DiskError):
        return error
    named = error.filename if isinstance(error, OSError) else None
    found = None if isinstance(error, OSError) else re.search(r"\(os error (\d{1,3})\)", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    if code not in _REMEDIES:
        return None
    if named is None or (path is not None and Path(str(named)).name.startswith(f".{Path(path).name}.")):
        named = path  # a hidden temporary file beside it, renamed once it is complete
    told = DiskError(f"{named}: {_REMEDIES[code]}" if named is not None else _REMEDIES[code])
    told.errno, told.filename = code, None if named is None else str(named)
    return told


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorator of a command line: `main` returns the exit code, 0 (or its own), or 2 with a message on a UserError.

    Ctrl-C ends with 130, without a traceback, as in the four scripts.
    """

    @functools.wraps(main)
    def guarded(*words: list[str] | None) -> int:
        try:
            return main(*words) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_USER_ERROR
        except KeyboardInterrupt:
            print("stopped by Ctrl-C", file=sys.stderr)
            return EXIT_INTERRUPT
        except Exception as error:
            if told := disk_error(error):
                print(f"error: {told}", file=sys.stderr)
                return EXIT_USER_ERROR
            raise

    return guarded
