"""Checkpoints of the Hugging Face hub: hub://owner/name[@revision] to a folder with the files that conversion needs.

Through huggingface_hub (an optional dependency); HF_ENDPOINT, HF_HOME and HF_TOKEN are respected, the revision is pinned to
its commit. What its cache holds is used from there. What it does not is kept in HF_HOME/encoders/downloads, because the
library (2.x) begins a file anew in every process: here a killed download goes on where it was. Every failure names its remedy.
"""

import errno
import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from tqdm import tqdm

from common.errors import UserError
from common.files import sha256_file

HUB = "hub://"
# What conversion reads beside the weights (model/importing.py); everything else in a repository stays where it is.
SMALL = re.compile(
    r"(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|task)\.json|vocab\.txt|merges\.txt|"
    r"(tokenizer|sentencepiece\.bpe|spiece|spm)\.model"
)
RETRIES = 5  # times that a download which broke off is taken up again
ROOM = 2  # times the weights' size that must be free: what is downloaded, and the checkpoint made of it


def _library():
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UserError(f"{HUB} needs huggingface_hub. pip install -r requirements-extra.txt") from None
    return huggingface_hub


def cache_home() -> Path:
    """HF_HOME as huggingface_hub understands it, read at the call."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME") or usual).expanduser()


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def parse(address: str) -> tuple[str, str | None]:
    """(owner/name, revision or None) of a hub:// address. Raises UserError for another shape."""
    repository, at, revision = address.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or (at and not revision):
        raise UserError(f"{address}: not an address of a model. Write {HUB}owner/name or {HUB}owner/name@revision.")
    return repository, revision or None


def download(address: str) -> tuple[Path, dict[str, Any]]:
    """(folder with the files, {"repository", "revision", "commit"}) of a model on the hub.

    Raises UserError: gated, missing, no weights that can be read, no network, not enough disk.
    """
    hub = _library()
    repository, revision = parse(address)
    try:
        info = hub.HfApi(endpoint=_endpoint()).model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:
        _explain(error, address)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    names = choose(sizes, address)
    place = {"repository": repository, "revision": revision or "main", "commit": info.sha}
    folder = cache_home() / "encoders" / "downloads" / repository.replace("/", "--") / info.sha
    folder.mkdir(parents=True, exist_ok=True)
    held = {name: _held(folder, name) for name in names}
    check_room(sum(sizes[name] - size for name, size in held.items()), folder, address)
    for name in tqdm(names, desc=f"hub: {repository}", unit=" files", disable=None, leave=False):
        fetch(repository, name, info.sha, folder, address)
    return folder, place


def _held(folder: Path, name: str) -> int:
    """Bytes of a file that are here already, whole or in part."""
    return max((path.stat().st_size for path in (folder / name, *folder.glob(f".{name}.*.part")) if path.exists()), default=0)


def choose(sizes: dict[str, int], address: str) -> list[str]:
    """The files to download: config, tokenizer and one set of weights, safetensors before torch's own format."""
    names = [name for name in sizes if SMALL.fullmatch(name)]
    if "config.json" not in names:
        raise UserError(f"{address}: no config.json there, so it is no model of transformers'. Correct the address.")
    for whole in ("model.safetensors", "pytorch_model.bin"):
        stem, suffix = whole.split(".")
        if whole in sizes:
            return [*names, whole]
        if f"{whole}.index.json" in sizes:
            return [
                *names,
                f"{whole}.index.json",
                *(name for name in sizes if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", name)),
            ]
    others = ", ".join(sorted(name for name in sizes if name not in names)[:8]) or "nothing else"
    raise UserError(
        f"{address}: neither model.safetensors nor pytorch_model.bin there, but {others}. Take a repository or revision "
        "that has one of them."
    )


def check_room(needed: int, folder: Path, address: str) -> None:
    """UserError if the disk of `folder` has less than ROOM times `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if ROOM * needed > free:
        raise UserError(
            f"{address}: needs {ROOM * needed / 1e9:,.1f} GB of disk ({needed / 1e9:,.1f} to download, as much for the "
            f"checkpoint made of it), {folder} has {free / 1e9:,.1f} GB free. Make room, or set HF_HOME to another disk."
        )


def fetch(repository: str, name: str, commit: str, folder: Path, address: str) -> None:
    """Put one file into `folder`, whole, unless it is there. Raises UserError as `download` does."""
    for attempt in range(RETRIES):
        try:
            with open(folder / f".{name}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one run may all ask: the first downloads
                if not (folder / name).exists():
                    _receive(repository, name, commit, folder, address)
            return
        except UserError:
            raise
        except Exception as error:
            if attempt + 1 == RETRIES or not _broke_off(error):
                _explain(error, f"{address} ({name})")


def _receive(repository: str, name: str, commit: str, folder: Path, address: str) -> None:
    """Download one file, from where an earlier process was stopped, and check its SHA-256 where the hub tells it."""
    hub = _library()
    from huggingface_hub.file_download import http_get

    cache = Path(os.environ.get("HF_HUB_CACHE") or cache_home() / "hub").expanduser()
    if isinstance(there := hub.try_to_load_from_cache(repository, name, cache_dir=cache, revision=commit), str):
        (folder / name).symlink_to(Path(there).resolve())
        return
    url = hub.hf_hub_url(repository, name, revision=commit, endpoint=_endpoint())
    found = hub.get_hf_file_metadata(url, endpoint=_endpoint())
    headers = hub.utils.build_hf_headers()
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # large files lie elsewhere, under an address that is its own permission
    part = folder / f".{name}.{found.etag}.part"
    with open(part, "ab") as file:
        http_get(
            found.location, file, resume_size=file.tell(), headers=headers, expected_size=found.size, displayed_filename=name
        )
    if re.fullmatch(r"[0-9a-f]{64}", found.etag or "") and sha256_file(part) != found.etag:
        part.unlink()
        raise UserError(f"{address} ({name}): damaged on the way (its SHA-256 differs) and removed. Run it again.")
    os.replace(part, folder / name)


def _broke_off(error: Exception) -> bool:
    """Whether a download ended in the middle, so that the next attempt takes it up."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"RemoteProtocolError", "ReadError", "ReadTimeout"}) or (
        isinstance(error, OSError) and "Consistency check failed" in str(error)
    )


def _explain(error: Exception, address: str) -> NoReturn:
    """Every way in which the hub can fail, by what to do about it."""
    errors = _library().errors
    status = getattr(getattr(error, "response", None), "status_code", None)
    repository = address.removeprefix(HUB).split(" ")[0].split("@")[0]
    if isinstance(error, errors.GatedRepoError) or status == 403:
        raise UserError(
            f"{address}: access is refused ({status or 'gated'}). Accept the terms at {_endpoint()}/{repository} and set "
            "HF_TOKEN to a token of that account (or run `hf auth login`)."
        ) from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise UserError(f"{address}: no such revision. Correct what stands after @.") from None
    if isinstance(error, errors.RemoteEntryNotFoundError):
        raise UserError(f"{address}: no such file in the repository. Correct the address.") from None
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        # The hub answers 401 for a repository that does not exist, so as not to tell which private ones do.
        raise UserError(
            f"{address}: no such model, or a private one ({status}). Correct the address; for a private one set HF_TOKEN to a "
            "token that may read it."
        ) from None
    if isinstance(error, errors.HFValidationError):
        raise UserError(f"{address}: not an address of a model ({error}). Write {HUB}owner/name.") from None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise UserError(f"{address}: the disk is full. Make room or set HF_HOME to a folder on another disk.") from None
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        raise UserError(f"{address}: the cache cannot be written ({error}). Set HF_HOME to a folder of your own.") from None
    if status is not None:
        raise UserError(f"{address}: the hub answered {status}. Try again later.") from None
    network = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    if network or isinstance(error, OSError | errors.LocalEntryNotFoundError):
        raise UserError(
            f"{address}: the hub cannot be reached at {_endpoint()} ({type(error).__name__}). Check the network and "
            "HF_ENDPOINT, then run it again: what was downloaded so far is kept."
        ) from None
    raise error
