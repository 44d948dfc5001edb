"""Checkpoints of the Hugging Face hub: hub://owner/name[@revision] to a folder with the files that conversion needs.

Through huggingface_hub (an optional dependency); HF_ENDPOINT, HF_HOME and HF_TOKEN are respected, the revision is pinned to
its commit. What its cache holds is used from there. What it does not is kept in HF_HOME/encoders/downloads, because the
library (2.x) begins a file anew in every process: here a killed download goes on where it was. Every failure names its remedy.
"""

import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from common.errors import UserError
from common.files import sha256_file
from common.hub import HUB, RETRIES, broke_off, cache, endpoint, explain, home, library

SHAPE = f"{HUB}owner/name or {HUB}owner/name@revision"
# What conversion reads beside the weights (model/importing.py); everything else in a repository stays where it is.
SMALL = re.compile(
    r"(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|task)\.json|vocab\.txt|merges\.txt|"
    r"(tokenizer|sentencepiece\.bpe|spiece|spm)\.model"
)
ROOM = 2  # times the weights' size that must be free: what is downloaded, and the checkpoint made of it


def parse(address: str) -> tuple[str, str | None]:
    """(owner/name, revision or None) of a hub:// address. Raises UserError for another shape."""
    repository, at, revision = address.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or (at and not revision):
        raise UserError(f"{address}: not an address of a model. Write {SHAPE}.")
    return repository, revision or None


def download(address: str) -> tuple[Path, dict[str, Any]]:
    """(folder with the files, {"repository", "revision", "commit"}) of a model on the hub.

    Raises UserError: gated, missing, no weights that can be read, no network, not enough disk.
    """
    hub = library()
    repository, revision = parse(address)
    try:
        info = hub.HfApi(endpoint=endpoint()).model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:
        explain(error, address, "model", SHAPE)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    names = choose(sizes, address)
    place = {"repository": repository, "revision": revision or "main", "commit": info.sha}
    folder = home() / "encoders" / "downloads" / repository.replace("/", "--") / info.sha
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
            if attempt + 1 == RETRIES or not broke_off(error):
                explain(error, f"{address} ({name})", "model", SHAPE)


def _receive(repository: str, name: str, commit: str, folder: Path, address: str) -> None:
    """Download one file, from where an earlier process was stopped, and check its SHA-256 where the hub tells it."""
    hub = library()
    from huggingface_hub.file_download import http_get

    if isinstance(there := hub.try_to_load_from_cache(repository, name, cache_dir=cache(), revision=commit), str):
        (folder / name).symlink_to(Path(there).resolve())
        return
    url = hub.hf_hub_url(repository, name, revision=commit, endpoint=endpoint())
    found = hub.get_hf_file_metadata(url, endpoint=endpoint())
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
