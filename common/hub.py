"""The Hugging Face hub, for data sets and checkpoints alike: what it says of one, its files on this disk, what a failure means.

Through huggingface_hub (an optional dependency); HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_TOKEN are respected. Files are kept
in the library's own cache, at the commit that they are of, so each is downloaded once whoever asks. The library (2.x) begins a
file anew in every process; here a download that was killed goes on where it was.
"""

import errno
import fcntl
import os
import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from common.errors import UserError
from common.files import sha256_file

HUB = "hub://"
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")  # packages whose errors are the network's
SHAPES = {  # how addresses are written
    "data set": f"{HUB}owner/name, {HUB}owner/name/config or {HUB}owner/name/folder/*.parquet, each with @revision if wanted",
    "model": f"{HUB}owner/name or {HUB}owner/name@revision",
}
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
    """The hub's address: HF_ENDPOINT, or huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def home() -> Path:
    """HF_HOME as huggingface_hub resolves it; the environment is read at each call."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME") or usual).expanduser()


def cache() -> Path:
    """The folder of huggingface_hub's own cache."""
    return Path(os.environ.get("HF_HUB_CACHE") or home() / "hub").expanduser()


class Place(NamedTuple):
    """One commit of a data set or a model."""

    address: str  # as it was asked for
    what: str  # "data set" or "model"
    repository: str  # owner/name
    commit: str

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        kind = "datasets" if self.what == "data set" else "models"
        return cache() / f"{kind}--{self.repository.replace('/', '--')}" / "snapshots" / self.commit


def broke_off(error: Exception) -> bool:
    """Whether a download was interrupted, so that the next attempt can resume it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"RemoteProtocolError", "ReadError", "ReadTimeout"}) or (
        isinstance(error, OSError) and "Consistency check failed" in str(error)
    )


def describe(repository: str, revision: str | None, address: str, what: str) -> Any:
    """What the hub says of a repository at a revision: its commit, files with their sizes, card. Raises as `explain`."""
    api = library().HfApi(endpoint=endpoint())
    try:
        if what == "data set":
            return api.dataset_info(repository, revision=revision)
        return api.model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:
        explain(error, address, what)


def fetch(place: Place, name: str) -> Path:
    """One file on this disk, downloaded unless it is there whole, and taken up RETRIES times where the connection breaks.

    Raises UserError as `explain`, and where what came is not what the hub has (by its SHA-256, for files that have one).
    """
    path, address = place.folder / name, f"{place.address} ({name})"
    for attempt in range(RETRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_name(f".{path.name}.lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one run may all ask: the first downloads
                if not path.exists():
                    _receive(place, name, path, address)
            return path
        except UserError:
            raise
        except Exception as error:
            if attempt + 1 == RETRIES or not broke_off(error):
                explain(error, address, place.what)
    raise AssertionError("the loop above returns or raises")


def held(place: Place, name: str) -> int:
    """Bytes of a file that are here already, whole or in part."""
    path = place.folder / name
    there = (path, *path.parent.glob(f".{path.name}.*.part"))
    return max((file.stat().st_size for file in there if file.exists()), default=0)


def _receive(place: Place, name: str, path: Path, address: str) -> None:
    """Download one file to `path`, from where an earlier process was stopped."""
    hub = library()
    from huggingface_hub.file_download import http_get

    kind = "dataset" if place.what == "data set" else None
    url = hub.hf_hub_url(place.repository, name, repo_type=kind, revision=place.commit, endpoint=endpoint())
    found = hub.get_hf_file_metadata(url, endpoint=endpoint())
    headers = hub.utils.build_hf_headers()
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # large files lie elsewhere, under an address that is its own permission
    part = path.with_name(f".{path.name}.{found.etag}.part")
    with open(part, "ab") as file:
        http_get(
            found.location, file, resume_size=file.tell(), headers=headers, expected_size=found.size, displayed_filename=name
        )
    if re.fullmatch(r"[0-9a-f]{64}", found.etag or "") and sha256_file(part) != found.etag:
        part.unlink()
        raise UserError(f"{address}: damaged in transfer (its SHA-256 differs) and removed. Run it again.")
    os.replace(part, path)


def explain(error: Exception, address: str, what: str) -> NoReturn:
    """Raise every way in which the hub can fail as a UserError that says what to do about it.

    `what` was asked for: "data set" or "model". An error that is none of the hub's,
    the network's or the disk's is raised as it is.
    """
    errors = library().errors
    status = getattr(getattr(error, "response", None), "status_code", None)
    repository = "/".join(address.removeprefix(HUB).split(" ")[0].split("@")[0].split("/")[:2])
    page = f"{endpoint()}/{'datasets/' if what == 'data set' else ''}{repository}"
    is_missing = isinstance(error, errors.RepositoryNotFoundError)
    # The hub answers 401 for a repository that does not exist, so as not to reveal which private ones do.
    if isinstance(error, errors.GatedRepoError) or status == 403 or (status == 401 and not is_missing):
        raise UserError(
            f"{address}: access is refused ({status or 'gated'}). Accept the terms at {page} and set HF_TOKEN to a token of "
            "that account (or run `hf auth login`)."
        ) from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise UserError(f"{address}: no such revision. Correct the part after @.") from None
    if isinstance(error, errors.RemoteEntryNotFoundError):
        raise UserError(f"{address}: no such file in the repository. Correct the address.") from None
    if is_missing or status == 404:
        raise UserError(
            f"{address}: no such {what}, or a private one ({status}). Correct the address; for a private one set HF_TOKEN to "
            "a token that may read it."
        ) from None
    if isinstance(error, errors.HFValidationError):
        raise UserError(f"{address}: not an address of a {what} ({error}). Write {SHAPES[what]}.") from None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise UserError(f"{address}: the disk is full. Make room or set HF_HOME to a folder on another disk.") from None
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        raise UserError(f"{address}: the cache cannot be written ({error}). Set HF_HOME to a folder of your own.") from None
    if status is not None:
        raise UserError(f"{address}: the hub answered {status}. Try again later.") from None
    network = type(error).__module__.split(".")[0] in NETWORK
    if network or isinstance(error, OSError | errors.LocalEntryNotFoundError):
        raise UserError(
            f"{address}: the hub cannot be reached at {endpoint()} ({type(error).__name__}). Check the network and "
            "HF_ENDPOINT, then run the command again: what was downloaded so far is kept."
        ) from None
    raise error
