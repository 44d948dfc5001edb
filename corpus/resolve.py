"""What needs the whole corpus at once: duplicates, repeated ids, task items, the held-out split. Tables only, no text.

Documents are numbered through, in the order of sources, files and lines. `files` lists every input file: source (its
number), label, annotated, decided and mended (unit folders, mended or null), parts (documents of each), start (number of
its first document). Tables are read a part at a time, and what is compared across the corpus goes through corpus.buckets:
memory holds some 30 bytes a document, all of them small numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpus.annotate import ROW
from corpus.buckets import in_buckets
from corpus.decontamination import TaskIndex
from corpus.duplicates import FileStore, exact_groups, near_clusters, survivors
from corpus.parts import NUMBER, blocks, columns, read_rows_of, read_texts, save_array, save_blocks
from corpus.signatures import mix
from corpus.units import make_unit

FATE = np.dtype([
    ("reason", "u1"),  # 0 survives, else the place in the list of reasons, counted from 1
    ("survivor", "<i8"),  # number of the document that stands for this one's cluster; -1 if it went before duplicates
    ("copies", "<i4"),  # documents in the cluster, this one included
    ("cluster", "<u8"),  # name of the cluster: the first half of its survivor's digest
    ("repeated", "?"),  # an earlier document of the source has the same id
])  # fmt: skip
HELDOUT_FLOOR = 20  # a source with this many documents gives at least one to the held-out set
HELDOUT_SALT = np.uint64(0x68656C646F757421)
SIZES = (1, 2, 3, 5, 10, 30, 100, 1000)  # lower bounds of the classes in which cluster sizes are reported


def part_paths(files: list[dict[str, Any]]) -> list[tuple[Path, Path, int]]:
    """For each part of each file, in order: its annotated stem, the stem of what stands for it now, its documents."""
    found = []
    for file in files:
        for number, count in enumerate(file["parts"]):
            annotated = Path(file["annotated"]) / f"{number:05d}"
            mended = Path(file["mended"]) / f"{number:05d}" if file["mended"] else None
            found.append((annotated, mended if mended and mended.with_suffix(".npz").exists() else annotated, count))
    return found


def tables(files: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int, np.ndarray]]:
    """For each part of each file, in order: its file, the number of its first document, its rows (corpus.annotate.ROW)."""
    for file in files:
        start = file["start"]
        for _, stem, count in part_paths([file]):
            yield file, start, columns(stem.with_suffix(".npz"), "rows")
            start += count


def read_rows(files: list[dict[str, Any]], name: str) -> np.ndarray:
    """One field of every document's row (see corpus.annotate.ROW), [documents]."""
    found = np.empty(sum(sum(file["parts"]) for file in files), dtype=ROW[name])
    for _, start, rows in tables(files):
        found[start : start + len(rows)] = rows[name]
    return found


def first_alike(
    files: list[dict[str, Any]],
    keys: Callable[[dict[str, Any], np.ndarray], tuple[np.ndarray, np.ndarray]],
    inside: np.ndarray | None,
    folder: Path,
) -> np.ndarray:
    """For each document [n] the number of the first one with the same two keys, among those `inside` [n] if given.

    keys(file, rows): two arrays [rows] uint64, the first one a hash. Documents that are not inside name themselves.
    """
    count = sum(sum(file["parts"]) for file in files)
    first = np.arange(count, dtype=NUMBER)

    def records() -> Iterator[np.ndarray]:
        for file, start, rows in tables(files):
            numbers = np.arange(start, start + len(rows), dtype=np.uint64)
            found = np.stack([*keys(file, rows), numbers], axis=1)
            yield found if inside is None else found[inside[start : start + len(rows)]]

    for bucket in in_buckets(records(), count, folder):
        numbers = bucket[:, 2].astype(NUMBER)
        first[numbers] = numbers[exact_groups(bucket[:, :2])]
    return first


def fold_keys(_: dict[str, Any], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of the digest of each document's fold key."""
    return rows["digest0"], rows["digest1"]


def own_ids(file: dict[str, Any], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each document's id, and its source."""
    return rows["id"], np.full(len(rows), file["source"], dtype=np.uint64)


def names_itself(first: np.ndarray) -> np.ndarray:
    """Whether each document [n] is the first of those that it is alike with, [n] bool."""
    return first == np.arange(len(first), dtype=NUMBER)


def read_reasons(files: list[dict[str, Any]]) -> tuple[np.ndarray, list[str]]:
    """What the second stage decided, [documents] uint8, on one list of reasons; 0 stays."""
    reasons: list[str] = []
    pieces = [np.empty(0, np.uint8)]
    for file in files:
        for name in file["reasons"]:
            if name not in reasons:
                reasons.append(name)
        places = np.array([0, *(reasons.index(name) + 1 for name in file["reasons"])], dtype=np.uint8)
        pieces += [places[np.load(Path(file["decided"]) / f"{number:05d}.npy")] for number in range(len(file["parts"]))]
    return np.concatenate(pieces), reasons


def find_duplicates(task: dict[str, Any]) -> dict[str, Any]:
    """The fate of every document, as fate.npy of FATE: task has files, near_duplicates, min_characters, folder, digest."""
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _find_duplicates(task, folder))


def _find_duplicates(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Exact ones first, then near ones among the first of each key: equal keys have equal signatures.

    Of the spellings of one text the fullest survives (most of ə ğ ı ö ş ü ç, then the longest, then the first): the
    others are its copies in capitals, in ASCII or in Cyrillic. Of near duplicates, the longest.
    """
    files, agreement = task["files"], task["near_duplicates"]
    reason, reasons = read_reasons(files)
    reasons += ["line_duplicate", "exact_duplicate", "near_duplicate"]
    line, exact, near = range(len(reasons) - 2, len(reasons) + 1)
    characters = read_rows(files, "characters")
    reason[(reason == 0) & (characters < max(1, task["min_characters"]))] = line  # all of it was common lines
    inside = reason == 0
    same = first_alike(files, fold_keys, inside, folder)
    best = names_itself(survivors(same, read_rows(files, "special"), characters))
    cluster = same
    if agreement is not None:
        rows = np.flatnonzero(inside & names_itself(same) & read_rows(files, "signed")).astype(NUMBER)
        store = FileStore([stem for _, stem, _ in part_paths(files)], [count for file in files for count in file["parts"]])
        places = near_clusters(store, rows, agreement, folder)
        cluster = np.arange(len(same), dtype=NUMBER)
        for block in blocks(len(rows)):
            cluster[rows[block]] = rows[places[block]]
        del rows, places
        for block in blocks(len(same)):  # in place: what is read stands at documents that name themselves
            cluster[block] = cluster[same[block]]
    kept = survivors(cluster, best, characters)
    del best, characters
    copies = np.zeros(len(cluster), dtype=np.int32)
    for block in blocks(len(cluster)):
        np.add.at(copies, cluster[block], 1)
    repeated = ~names_itself(first_alike(files, own_ids, None, folder))
    digests = read_rows(files, "digest0")

    def fates() -> Iterator[np.ndarray]:
        for block in blocks(len(cluster)):
            numbers, here = kept[block], inside[block]
            gone = here & (numbers != np.arange(block.start, block.stop))
            fate = np.zeros(len(numbers), dtype=FATE)
            fate["survivor"] = np.where(here, numbers, -1)
            fate["copies"] = np.where(here, copies[cluster[block]], 0)
            fate["cluster"] = np.where(here, digests[numbers], 0)
            fate["reason"] = np.where(gone, np.where(same[block] == same[numbers], exact, near), reason[block])
            fate["repeated"] = repeated[block]
            yield fate

    save_blocks(folder / "fate.npy", fates(), FATE, len(cluster))
    return {"reasons": reasons, "cluster_sizes": _cluster_sizes(files, folder / "fate.npy")}


def fates_of(path: str | Path, file: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
    """For each part of a file: the number of its first document, and its documents' fates."""
    start = file["start"]
    for count in file["parts"]:
        yield start, read_rows_of(Path(path), start, start + count)
        start += count


def _cluster_sizes(files: list[dict[str, Any]], fates: Path) -> list[dict[str, int]]:
    """For each source, clusters by size: {"1": n, "2": n, "3-4": n, ...}; a cluster counts where its survivor is."""
    counts = np.zeros((max((file["source"] for file in files), default=-1) + 1, len(SIZES)), dtype=np.int64)
    for file in files:
        for _, fate in fates_of(fates, file):
            sizes = fate["copies"][fate["reason"] == 0]
            counts[file["source"]] += np.bincount(np.searchsorted(SIZES, sizes, side="right") - 1, minlength=len(SIZES))
    return [{name: int(count) for name, count in zip(_class_names(), row, strict=True) if count} for row in counts]


def _class_names() -> list[str]:
    ends = [*(size - 1 for size in SIZES[1:]), None]
    pairs = zip(SIZES, ends, strict=True)
    return [f"{low}" if low == high else f"{low}-{high}" if high else f"{low} or more" for low, high in pairs]


_indexes: dict[str, TaskIndex] = {}


def find_task_items(task: dict[str, Any]) -> dict[str, Any]:
    """Which surviving documents of one file hold task items: task has tasks (files), file, fate (path), folder, digest.

    Writes hits.npz: rows [n] (numbers in the file) and what was found first in each, as packed strings.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _find_task_items(task, folder))


def _find_task_items(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    key = str(task["tasks"])
    if key not in _indexes:
        _indexes[key] = TaskIndex([Path(name) for name in task["tasks"]])
    index, file = _indexes[key], task["file"]
    survives = np.concatenate([fate["reason"] == 0 for _, fate in fates_of(task["fate"], file)])
    rows, what, kinds = [], [], Counter()
    row = -1
    for row, record in enumerate(documents_of(file)):
        if not survives[row]:
            continue
        found = index.matches(record.get("meta") or {}) or index.hits(record["text"])
        if found:
            rows.append(row)
            what.append(f"{found[0][0]} ({found[0][1]})")
            kinds.update({found[0][1]})
    np.savez(folder / "hits.npz", rows=np.array(rows, dtype=np.int64), what=np.array(what or [""]))
    return {"documents": len(rows), "kinds": dict(sorted(kinds.items()))}


def documents_of(file: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The staged documents of one file with the text that they have now; `lines` says how many lines were taken out."""
    for annotated, stem, _ in part_paths([file]):
        mended = read_texts(stem.with_suffix(".jsonl.zst")) if stem != annotated else iter(())
        changed = next(mended, None)
        for row, record in enumerate(read_texts(annotated.with_suffix(".jsonl.zst"))):
            if changed and changed["row"] == row:
                record |= {"text": changed["text"], "lines": changed["lines"]}
                changed = next(mended, None)
            yield record


def split(task: dict[str, Any]) -> dict[str, Any]:
    """The held-out documents, as heldout.npy [documents] bool: task has files, fate, hits, sources, fraction, most.

    hits: for each file the folder of its task items, or null. The summary says how each source was divided.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _split(task, folder))


def _split(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    files = task["files"]
    free = np.concatenate([fate["reason"] == 0 for file in files for _, fate in fates_of(task["fate"], file)])
    for file, hits in zip(files, task["hits"], strict=True):
        if hits:
            free[columns(Path(hits) / "hits.npz", "rows") + file["start"]] = False
    heldout = np.zeros(len(free), dtype=bool)
    ways = []
    for number in range(task["sources"]):
        own = [file for file in files if file["source"] == number]
        members = sum(int(free[file["start"] : file["start"] + sum(file["parts"])].sum()) for file in own)
        wanted = min(task["most"], round(task["fraction"] * members))
        if task["most"] and task["fraction"] and members >= HELDOUT_FLOOR:
            wanted = max(1, wanted)
        chosen, way = choose_heldout(own, free, wanted, folder)
        heldout[chosen] = True
        ways.append(way)
    save_array(folder / "heldout.npy", heldout)
    return {"ways": ways}


def choose_heldout(files: list[dict[str, Any]], free: np.ndarray, wanted: int, folder: Path) -> tuple[np.ndarray, str]:
    """Numbers of the documents of one source that are held out, out of those `free` [documents], and "site" or "document".

    By a salted hash of the site, whole sites at a time, those that are larger than what is wanted left out; documents
    without a site stand for themselves. Where no site is small enough, by document. The choice depends on no place, so
    it hardly moves when a source grows. ("none" where none are wanted.)
    """
    if not wanted:
        return np.empty(0, dtype=np.int64), "none"
    total, sites = 0, False
    for _, start, rows in tables(files):
        here = free[start : start + len(rows)]
        total, sites = total + int(here.sum()), sites or bool(rows["site"][here].any())

    def records(by_site: bool) -> Iterator[np.ndarray]:
        for _, start, rows in tables(files):
            here = np.flatnonzero(free[start : start + len(rows)])
            site, group = rows["site"][here], mix(rows["digest0"][here] ^ HELDOUT_SALT)
            if by_site:
                group = np.where(site > 0, mix(site ^ HELDOUT_SALT), group)
            yield np.stack([group, (here + start).astype(np.uint64)], axis=1)

    if sites and len(chosen := _whole_groups(in_buckets(records(True), total, folder), wanted)):
        return chosen, "site"
    return _whole_groups(in_buckets(records(False), total, folder), wanted), "document"


def _whole_groups(buckets: Iterable[np.ndarray], wanted: int) -> np.ndarray:
    """Numbers of at most `wanted` documents from records [n, 2] of (group, number): a group that is too large is left out."""
    taken = [np.empty(0, dtype=np.int64)]
    for bucket in buckets:
        _, group, sizes = np.unique(bucket[:, 0], return_inverse=True, return_counts=True)
        chosen = []
        for place in np.flatnonzero(sizes <= wanted).tolist():  # in the order of their hashes
            if sizes[place] <= wanted:
                wanted -= int(sizes[place])
                chosen.append(place)
            if not wanted:
                break
        taken.append(bucket[np.isin(group, chosen), 1].astype(np.int64))
        if not wanted:
            break
    return np.concatenate(taken)
