"""Data sets of the Hugging Face hub: hub://owner/name/config-or-glob@revision to files in the local cache.

The files that are wanted are listed at one commit and downloaded into the hub's own cache (HF_HOME). A connection that
breaks off is taken up where it was; after a kill the files that were whole are kept and the one under way begins anew.
HF_ENDPOINT and HF_TOKEN are respected. Every failure names its remedy.
"""

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import UserError
from common.hub import HUB, RETRIES, broke_off, cache, endpoint, explain, library

SHAPE = "hub://owner/name, hub://owner/name/config or hub://owner/name/folder/*.parquet, each with @revision if wanted"


def parse(address: str) -> tuple[str, str, str]:
    """(owner/name, config or glob or "", revision) of a hub:// address. Raises UserError for another shape."""
    path, _, revision = address.removeprefix(HUB).partition("@")
    parts = [part for part in path.split("/") if part]
    if not address.startswith(HUB) or len(parts) < 2 or ("@" in address and not revision):
        raise UserError(f"{address}: not an address of a data set. Write {SHAPE}.")
    return "/".join(parts[:2]), "/".join(parts[2:]), revision or "main"


def hub_files(
    address: str, usable: Callable[[str], bool] | None, later: bool = False
) -> tuple[list[Path], list[str], dict[str, str]]:
    """(local paths, names in the data set, what fetch_file needs) of the files that `address` asks for.

    `usable` says by its name whether a file is data. With `later` nothing is downloaded: the paths are where the files
    will be. Raises UserError: the address names nothing, the data set is gated or missing, no network, no room.
    """
    hub = library()
    repository, wanted, revision = parse(address)
    try:
        info = hub.HfApi(endpoint=endpoint()).dataset_info(repository, revision=revision)
    except Exception as error:
        explain(error, address, "data set", SHAPE)
    held = sorted(sibling.rfilename for sibling in info.siblings or [])
    card = info.card_data.to_dict() if info.card_data else {}
    names = [name for name in choose(held, wanted, card.get("configs") or []) if usable is None or usable(name)]
    if not names:
        folders = ", ".join(sorted({name.rsplit("/", 1)[0] for name in held if "/" in name})[:10]) or "no folder"
        raise UserError(f"{address}: no data file matches {wanted or 'it'}. The data set has {folders}. Correct the address.")
    place = {"repository": repository, "sha": info.sha, "address": address}
    if later:
        folder = cache() / f"datasets--{repository.replace('/', '--')}" / "snapshots" / info.sha
        return [folder / name for name in names], names, place
    bar = tqdm(names, desc=f"hub: {repository}", unit=" files", disable=None, leave=False)
    return [fetch_file(place, name) for name in bar], names, place


def choose(held: list[str], wanted: str, configs: list[dict[str, Any]]) -> list[str]:
    """The files that a config or a glob stands for: by the data set's own card, or else by the names of its folders."""
    if not wanted:
        return held
    if any(sign in wanted for sign in "*?["):
        return [name for name in held if fnmatch.fnmatchcase(name, wanted)]
    for config in configs:
        if config.get("config_name") == wanted and config.get("data_files"):
            chosen = [name for name in held if any(_matches(name, glob) for glob in _training_globs(config["data_files"]))]
            if chosen:
                return chosen
    if wanted in held:
        return [wanted]
    under = [name for name in held if f"/{wanted}/" in f"/{name}"]
    training = [name for name in under if "train" in name.split(wanted, 1)[1]]
    return training or under


def _matches(name: str, glob: str) -> bool:
    return fnmatch.fnmatchcase(name, glob) or name == glob


def _training_globs(data_files: Any) -> list[str]:
    """Patterns of the split that is called train, or of all where none is: test splits are not for pre-training."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    named = [entry for entry in entries if isinstance(entry, dict)]
    entries = [entry for entry in named if entry.get("split") == "train"] or entries
    globs = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    return [glob for item in globs for glob in (item if isinstance(item, list) else [item])]


def fetch_file(place: dict[str, str], name: str) -> Path:
    """One file in the cache, downloaded unless it is there whole. Raises UserError as hub_files does."""
    hub = library()
    for attempt in range(RETRIES):
        try:
            path = hub.hf_hub_download(
                place["repository"], name, repo_type="dataset", revision=place["sha"], endpoint=endpoint(), cache_dir=cache()
            )
            return Path(path)
        except Exception as error:
            if attempt + 1 == RETRIES or not broke_off(error):
                explain(error, f"{place['address']} ({name})", "data set", SHAPE)
    raise AssertionError("the loop above returns or raises")
