"""Download checkpoints of the Hugging Face hub: hub://owner/name[@revision] to a folder with the files for conversion.

The revision is pinned to its commit; the files are downloaded by common.hub. Every failure names its remedy.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.hub import HUB, SHAPES, Place, describe, fetch, held
from common.progress import progress

# What conversion reads beside the weights (model/convert/importing.py); everything else in a repository stays where it is.
SMALL = re.compile(
    r"(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|task)\.json|vocab\.txt|merges\.txt|"
    r"(tokenizer|sentencepiece\.bpe|spiece|spm)\.model"
)
ROOM = 2  # times the weights' size that must be free, for the download and for the checkpoint made from it


def parse(address: str) -> tuple[str, str | None]:
    """(owner/name, revision or None) of a hub:// address. Raises UserError for another shape."""
    repository, at, revision = address.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or (at and not revision):
        raise UserError(f"{address}: not an address of a model. Write {SHAPES['model']}.")
    return repository, revision or None


def download(address: str) -> tuple[Path, dict[str, Any]]:
    """(folder with the files, {"repository", "revision", "commit"}) of a model on the hub.

    Raises UserError: gated, missing, no weights that can be read, no network, not enough disk.
    """
    repository, revision = parse(address)
    info = describe(repository, revision, address, "model")
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    names = choose(sizes, address)
    place = Place(address, "model", repository, info.sha)
    check_room(sum(sizes[name] - held(place, name) for name in names), place.folder, address)
    for name in progress(names, desc=f"hub: {repository}", unit=" files", leave=False):
        fetch(place, name)
    return place.folder, {"repository": repository, "revision": revision or "main", "commit": info.sha}


def choose(sizes: dict[str, int], address: str) -> list[str]:
    """The files to download: config, tokenizer and one set of weights; safetensors is preferred to torch's own format."""
    names = [name for name in sizes if SMALL.fullmatch(name)]
    if "config.json" not in names:
        raise UserError(f"{address}: no config.json there, so it is not a transformers model. Correct the address.")
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
    there = next((path for path in folder.parents if path.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    if ROOM * needed > free:
        raise UserError(
            f"{address}: needs {ROOM * needed / 1e9:,.1f} GB of disk ({needed / 1e9:,.1f} to download, as much for the "
            f"checkpoint made from it), {folder} has {free / 1e9:,.1f} GB free. Make room, or set HF_HOME to another disk."
        )
