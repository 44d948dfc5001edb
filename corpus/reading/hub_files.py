"""Data sets of the Hugging Face hub: hub://owner/name/config-or-glob@revision to files in the local cache.

The files that are wanted are listed at one commit and downloaded by common.hub. Every failure names its remedy.
"""

import fnmatch
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import digest_of, put_in_place, remove, write_json
from common.hub import HUB, SHAPES, Place, cache, describe, explain, fetch
from common.progress import progress


def parse(address: str) -> tuple[str, str, str]:
    """(owner/name, config or glob or "", revision) of a hub:// address. Raises UserError for another shape."""
    path, _, revision = address.removeprefix(HUB).partition("@")
    parts = [part for part in path.split("/") if part]
    if not address.startswith(HUB) or len(parts) < 2 or ("@" in address and not revision):
        raise UserError(f"{address}: not an address of a data set. Write {SHAPES['data set']}.")
    return "/".join(parts[:2]), "/".join(parts[2:]), revision or "main"


def hub_files(
    address: str, usable: Callable[[str], bool] | None, later: bool = False, every: bool = False
) -> tuple[list[Path], list[str], Place]:
    """(local paths, names in the data set, what common.hub.fetch needs) of the files that `address` asks for.

    `usable` tells by a file's name whether it is data. With `later` nothing is downloaded: the paths are where the files
    will be. Of a config the training split is taken, with `every` all splits. Raises UserError: the address selects nothing,
    the data set is gated or missing, no network, no disk space.
    """
    repository, wanted, revision = parse(address)
    info = describe(repository, revision, address, "data set")
    held = sorted(sibling.rfilename for sibling in info.siblings or [])
    card = info.card_data.to_dict() if info.card_data else {}
    names = [name for name in choose(held, wanted, card.get("configs") or [], every) if usable is None or usable(name)]
    if not names:
        folders = ", ".join(sorted({name.rsplit("/", 1)[0] for name in held if "/" in name})[:10]) or "no folder"
        raise UserError(f"{address}: no data file matches {wanted or 'it'}. The data set has {folders}. Correct the address.")
    place = Place(address, "data set", repository, info.sha)
    if later:
        return [place.folder / name for name in names], names, place
    bar = progress(names, desc=f"hub: {repository}", unit=" files", leave=False)
    return [fetch(place, name) for name in bar], names, place


def hub_folder(address: str, usable: Callable[[str], bool]) -> Path:
    """A folder with the files of all splits that `address` asks for, each at its place in the data set, as links.

    It is kept in the hub's cache and used again as it is, so a second run reads the same commit and needs no network; remove it
    to get a newer one. Raises UserError as `hub_files`.
    """
    repository, _, _ = parse(address)
    folder = cache() / f"datasets--{repository.replace('/', '--')}" / "selections" / digest_of(address)[:16]
    if folder.is_dir() and all(link.exists() for link in folder.rglob("*")):
        return folder
    paths, names, place = hub_files(address, usable, every=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        remove(beside)
        for path, name in zip(paths, names, strict=True):
            link = beside / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        write_json(beside / ".source.json", {"address": address, "commit": place.commit, "files": names})
        put_in_place(beside, folder)
    except OSError as error:
        explain(error, address, "data set")
    return folder


def choose(held: list[str], wanted: str, configs: list[dict[str, Any]], every: bool = False) -> list[str]:
    """The files that a config or a glob selects: by the data set's own card, otherwise by the names of its folders."""
    if not wanted:
        return held
    if any(sign in wanted for sign in "*?["):
        return [name for name in held if fnmatch.fnmatchcase(name, wanted)]
    for config in configs:
        if config.get("config_name") == wanted and config.get("data_files"):
            chosen = [name for name in held if any(_matches(name, glob) for glob in _globs(config["data_files"], every))]
            if chosen:
                return chosen
    if wanted in held:
        return [wanted]
    under = [name for name in held if f"/{wanted}/" in f"/{name}"]
    training = [name for name in under if "train" in name.split(wanted, 1)[1]]
    return under if every else training or under


def _matches(name: str, glob: str) -> bool:
    return fnmatch.fnmatchcase(name, glob) or name == glob


def _globs(data_files: Any, every: bool) -> list[str]:
    """Patterns of the split called train, or of all splits if there is none: test splits are not for pre-training.
    With `every` those of all splits."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    named = [entry for entry in entries if isinstance(entry, dict)]
    entries = entries if every else [entry for entry in named if entry.get("split") == "train"] or entries
    globs = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    return [glob for item in globs for glob in (item if isinstance(item, list) else [item])]
