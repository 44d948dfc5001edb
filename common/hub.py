"""What data sets and checkpoints of the Hugging Face hub share: where it is, when to try again, what a failure means."""

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

from common.errors import UserError

HUB = "hub://"
RETRIES = 5  # times that a download which broke off is taken up again


def library() -> Any:
    """The huggingface_hub package. Raises UserError when it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UserError(f"{HUB} needs huggingface_hub. pip install -r requirements-extra.txt") from None
    return huggingface_hub


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT or its own."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def home() -> Path:
    """HF_HOME as huggingface_hub understands it, read at the call."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME") or usual).expanduser()


def cache() -> Path:
    """The folder of huggingface_hub's own cache."""
    return Path(os.environ.get("HF_HUB_CACHE") or home() / "hub").expanduser()


def broke_off(error: Exception) -> bool:
    """Whether a download ended in the middle, so that the next attempt takes it up."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"RemoteProtocolError", "ReadError", "ReadTimeout"}) or (
        isinstance(error, OSError) and "Consistency check failed" in str(error)
    )


def explain(error: Exception, address: str, what: str, shape: str) -> NoReturn:
    """Raise every way in which the hub can fail as a UserError that says what to do about it.

    `what` was asked for: "data set" or "model"; `shape`: how its address is written. An error that is none of the hub's,
    the network's or the disk's is raised as it is.
    """
    errors = library().errors
    status = getattr(getattr(error, "response", None), "status_code", None)
    repository = "/".join(address.removeprefix(HUB).split(" ")[0].split("@")[0].split("/")[:2])
    page = f"{endpoint()}/{'datasets/' if what == 'data set' else ''}{repository}"
    is_missing = isinstance(error, errors.RepositoryNotFoundError)
    # The hub answers 401 for a repository that does not exist, so as not to tell which private ones do.
    if isinstance(error, errors.GatedRepoError) or status == 403 or (status == 401 and not is_missing):
        raise UserError(
            f"{address}: access is refused ({status or 'gated'}). Accept the terms at {page} and set HF_TOKEN to a token of "
            "that account (or run `hf auth login`)."
        ) from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise UserError(f"{address}: no such revision. Correct what stands after @.") from None
    if isinstance(error, errors.RemoteEntryNotFoundError):
        raise UserError(f"{address}: no such file in the repository. Correct the address.") from None
    if is_missing or status == 404:
        raise UserError(
            f"{address}: no such {what}, or a private one ({status}). Correct the address; for a private one set HF_TOKEN to "
            "a token that may read it."
        ) from None
    if isinstance(error, errors.HFValidationError):
        raise UserError(f"{address}: not an address of a {what} ({error}). Write {shape}.") from None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise UserError(f"{address}: the disk is full. Make room or set HF_HOME to a folder on another disk.") from None
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        raise UserError(f"{address}: the cache cannot be written ({error}). Set HF_HOME to a folder of your own.") from None
    if status is not None:
        raise UserError(f"{address}: the hub answered {status}. Try again later.") from None
    network = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    if network or isinstance(error, OSError | errors.LocalEntryNotFoundError):
        raise UserError(
            f"{address}: the hub cannot be reached at {endpoint()} ({type(error).__name__}). Check the network and "
            "HF_ENDPOINT, then run it again: what was downloaded so far is kept."
        ) from None
    raise error
