"""Steps that need the whole corpus: duplicates, repeated ids, task items, the held-out split. Tables only, no text.

Documents are numbered in the order of sources, files and lines. Tables are read part by part, and comparisons across the
corpus go through corpus.matching.hash_partitions: memory holds about 30 bytes for each document.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpus.matching.decontamination import TaskIndex
from corpus.matching.duplicates import FileStore, exact_groups, near_clusters, survivors
from corpus.matching.hash_partitions import partitioned
from corpus.matching.signatures import mix
from corpus.stages.annotate import ROW
from corpus.stages.parts import NUMBER, StagedFile, blocks, columns, read_rows_of, read_texts, save_array, save_blocks
from corpus.stages.units import make_unit
from language.base import load_language

DECISION = np.dtype(
    [
        ("reason", "u1"),  # 0 survives, otherwise the index in the list of reasons, from 1
        ("survivor", "<i8"),  # number of its cluster's survivor; -1 if it was removed before duplicates
        ("copies", "<i4"),  # documents in the cluster, including this one
        ("cluster", "<u8"),  # name of the cluster: the first half of its survivor's digest
        ("repeated", "?"),  # an earlier document of the source has the same id
    ]
)
DUPLICATES_SETTINGS = ("near_duplicates", "min_characters")
SPLIT_SETTINGS = ("heldout_fraction", "heldout_max")
# A source with this many documents gives at least one to the held-out set; otherwise the largest source does.
HELDOUT_FLOOR = 20
HELDOUT_SALT = np.uint64(0x68656C646F757421)
SIZES = (1, 2, 3, 5, 10, 30, 100, 1000)  # lower bounds of the classes of cluster sizes in the report


def part_paths(files: list[StagedFile]) -> list[tuple[Path, Path, int]]:
    """For each part of each file, in order: its annotated stem, the stem of its current version, its documents."""
    found = []
    for file in files:
        for number, count in enumerate(file.parts):
            annotated = Path(file.annotated) / f"{number:05d}"
            repaired = Path(file.repaired) / f"{number:05d}" if file.repaired else None
            found.append((annotated, repaired if repaired and repaired.with_suffix(".npz").exists() else annotated, count))
    return found


def tables(files: list[StagedFile]) -> Iterator[tuple[StagedFile, int, np.ndarray]]:
    """For each part of each file, in order: its file, the number of its first document, its rows (annotate.ROW)."""
    for file in files:
        start = file.start
        for _, stem, count in part_paths([file]):
            yield file, start, columns(stem.with_suffix(".npz"), "rows")
            start += count


def read_rows(files: list[StagedFile], name: str) -> np.ndarray:
    """One field of every document's row (see corpus.stages.annotate.ROW), [documents]."""
    found = np.empty(sum(file.documents for file in files), dtype=ROW[name])
    for _, start, rows in tables(files):
        found[start : start + len(rows)] = rows[name]
    return found


def first_alike(
    files: list[StagedFile],
    keys: Callable[[StagedFile, np.ndarray], tuple[np.ndarray, np.ndarray]],
    inside: np.ndarray | None,
    folder: Path,
) -> np.ndarray:
    """For each document [n] the number of the first one with the same two keys, among those `inside` [n] if given.

    keys(file, rows): two arrays [rows] uint64, the first one a hash. Documents that are not inside get their own number.
    """
    count = sum(file.documents for file in files)
    first = np.arange(count, dtype=NUMBER)

    def records() -> Iterator[np.ndarray]:
        for file, start, rows in tables(files):
            numbers = np.arange(start, start + len(rows), dtype=np.uint64)
            found = np.stack([*keys(file, rows), numbers], axis=1)
            yield found if inside is None else found[inside[start : start + len(rows)]]

    for partition in partitioned(records(), count, folder):
        numbers = partition[:, 2].astype(NUMBER)
        first[numbers] = numbers[exact_groups(partition[:, :2])]
    return first


def fold_keys(_: StagedFile, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of the digest of each document's fold key."""
    return rows["digest0"], rows["digest1"]


def own_ids(file: StagedFile, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The id and source of each document."""
    return rows["id"], np.full(len(rows), file.source, dtype=np.uint64)


def names_itself(first: np.ndarray) -> np.ndarray:
    """Whether each document [n] is the first of its equals, [n] bool."""
    return first == np.arange(len(first), dtype=NUMBER)


def read_reasons(files: list[StagedFile]) -> tuple[np.ndarray, list[str]]:
    """The decisions of the second stage, [documents] uint8, as indices into one list of reasons; 0 is kept."""
    reasons: list[str] = []
    pieces = [np.empty(0, np.uint8)]
    for file in files:
        for name in file.reasons:
            if name not in reasons:
                reasons.append(name)
        places = np.array([0, *(reasons.index(name) + 1 for name in file.reasons)], dtype=np.uint8)
        pieces += [places[np.load(Path(file.decided) / f"{number:05d}.npy")] for number in range(len(file.parts))]
    return np.concatenate(pieces), reasons


def find_duplicates(task: dict[str, Any]) -> dict[str, Any]:
    """Writes decision.npy (DECISION, one row a document). `task` has files, settings (DUPLICATES_SETTINGS), folder, digest."""
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _find_duplicates(task, folder))


def _find_duplicates(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Exact duplicates first, then near ones among the first of each key, since equal keys have equal signatures.

    Of several spellings of one text the fullest survives (most of ə ğ ı ö ş ü ç, then the longest, then the first): the
    others are copies in capitals, in ASCII or in Cyrillic. Of near duplicates, the longest survives.
    """
    files, agreement = task["files"], task["settings"]["near_duplicates"]
    reason, reasons = read_reasons(files)
    reasons += ["line_duplicate", "exact_duplicate", "near_duplicate"]
    line, exact, near = range(len(reasons) - 2, len(reasons) + 1)
    characters = read_rows(files, "characters")
    reason[(reason == 0) & (characters < max(1, task["settings"]["min_characters"]))] = line  # consisted of common lines only
    inside = reason == 0
    same = first_alike(files, fold_keys, inside, folder)
    best = names_itself(survivors(same, read_rows(files, "special"), characters))
    cluster = same
    if agreement is not None:
        rows = np.flatnonzero(inside & names_itself(same) & read_rows(files, "signed")).astype(NUMBER)
        store = FileStore([stem for _, stem, _ in part_paths(files)], [count for file in files for count in file.parts])
        places = near_clusters(store, rows, agreement, folder)
        cluster = np.arange(len(same), dtype=NUMBER)
        for block in blocks(len(rows)):
            cluster[rows[block]] = rows[places[block]]
        del rows, places
        for block in blocks(len(same)):  # in place: values are read at documents that refer to themselves
            cluster[block] = cluster[same[block]]
    kept = survivors(cluster, best, characters)
    del best, characters
    copies = np.zeros(len(cluster), dtype=np.int32)
    for block in blocks(len(cluster)):
        np.add.at(copies, cluster[block], 1)
    repeated = ~names_itself(first_alike(files, own_ids, None, folder))
    digests = read_rows(files, "digest0")

    def decisions() -> Iterator[np.ndarray]:
        for block in blocks(len(cluster)):
            numbers, here = kept[block], inside[block]
            gone = here & (numbers != np.arange(block.start, block.stop))
            decision = np.zeros(len(numbers), dtype=DECISION)
            decision["survivor"] = np.where(here, numbers, -1)
            decision["copies"] = np.where(here, copies[cluster[block]], 0)
            decision["cluster"] = np.where(here, digests[numbers], 0)
            decision["reason"] = np.where(gone, np.where(same[block] == same[numbers], exact, near), reason[block])
            decision["repeated"] = repeated[block]
            yield decision

    save_blocks(folder / "decision.npy", decisions(), DECISION, len(cluster))
    return {"reasons": reasons, "cluster_sizes": _cluster_sizes(files, folder / "decision.npy")}


def decisions_of(path: str | Path, file: StagedFile) -> Iterator[tuple[int, np.ndarray]]:
    """For each part of a file: the number of its first document, and the decisions on its documents."""
    start = file.start
    for count in file.parts:
        yield start, read_rows_of(Path(path), start, start + count)
        start += count


def _cluster_sizes(files: list[StagedFile], decisions: Path) -> list[dict[str, int]]:
    """For each source, clusters by size: {"1": n, "2": n, "3-4": n, ...}; a cluster belongs to its survivor's source."""
    counts = np.zeros((max((file.source for file in files), default=-1) + 1, len(SIZES)), dtype=np.int64)
    for file in files:
        for _, decision in decisions_of(decisions, file):
            sizes = decision["copies"][decision["reason"] == 0]
            counts[file.source] += np.bincount(np.searchsorted(SIZES, sizes, side="right") - 1, minlength=len(SIZES))
    return [{name: int(count) for name, count in zip(_class_names(), row, strict=True) if count} for row in counts]


def _class_names() -> list[str]:
    ends = [*(size - 1 for size in SIZES[1:]), None]
    pairs = zip(SIZES, ends, strict=True)
    return [f"{low}" if low == high else f"{low}-{high}" if high else f"{low} or more" for low, high in pairs]


_indexes: dict[str, TaskIndex] = {}


def find_task_items(task: dict[str, Any]) -> dict[str, Any]:
    """Find the surviving documents of one file that contain task items.

    task has tasks (files), file, decision (path), folder, digest.

    Writes hits.npz: rows [n] (numbers in the file) and the first item found in each, as packed strings.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _find_task_items(task, folder))


def _find_task_items(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    language = task["settings"]["language"]
    key = f"{language} {task['tasks']}"
    if key not in _indexes:
        _indexes[key] = TaskIndex(load_language(language), [Path(name) for name in task["tasks"]])
    index, file = _indexes[key], task["file"]
    survives = np.concatenate([decision["reason"] == 0 for _, decision in decisions_of(task["decision"], file)])
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


def documents_of(file: StagedFile) -> Iterator[dict[str, Any]]:
    """The stored documents of one file with their current text; `lines` is the number of removed lines."""
    for annotated, stem, _ in part_paths([file]):
        repaired = read_texts(stem.with_suffix(".jsonl.zst")) if stem != annotated else iter(())
        changed = next(repaired, None)
        for row, record in enumerate(read_texts(annotated.with_suffix(".jsonl.zst"))):
            if changed and changed["row"] == row:
                record |= {"text": changed["text"], "lines": changed["lines"]}
                changed = next(repaired, None)
            yield record


def split(task: dict[str, Any]) -> dict[str, Any]:
    """Choose held-out documents and write heldout.npy [documents] bool: task has files, decision, hits, sources, settings.

    hits: for each file the folder of its task items, or null. The summary says how each source was split.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _split(task, folder))


def _split(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    files = task["files"]
    free = np.concatenate([decision["reason"] == 0 for file in files for _, decision in decisions_of(task["decision"], file)])
    for file, hits in zip(files, task["hits"], strict=True):
        if hits:
            free[columns(Path(hits) / "hits.npz", "rows") + file.start] = False
    heldout = np.zeros(len(free), dtype=bool)
    members = [0] * task["sources"]
    for file in files:
        members[file.source] += int(free[file.start : file.start + file.documents].sum())
    fraction, most = task["settings"]["heldout_fraction"], task["settings"]["heldout_max"]
    wanted = [min(most, round(fraction * count)) for count in members]
    if most and fraction:
        wanted = [max(1, some) if count >= HELDOUT_FLOOR else some for some, count in zip(wanted, members, strict=True)]
        if not any(wanted) and max(members, default=0) > 1:  # a tiny corpus: training needs one document for evaluation
            wanted[members.index(max(members))] = 1
    ways = []
    for number in range(task["sources"]):
        own = [file for file in files if file.source == number]
        chosen, way = choose_heldout(own, free, wanted[number], folder)
        heldout[chosen] = True
        ways.append(way)
    save_array(folder / "heldout.npy", heldout)
    return {"ways": ways}


def choose_heldout(files: list[StagedFile], free: np.ndarray, wanted: int, folder: Path) -> tuple[np.ndarray, str]:
    """Numbers of the held-out documents of one source, chosen among those `free` [documents], and "site" or "document".

    Chosen by a salted hash of the site, whole sites at a time, without sites larger than `wanted`; a document without a site
    is a site of its own. If no site is small enough, by document. The choice does not depend on positions, so it hardly
    changes when a source grows. ("none" if `wanted` is 0.)
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

    if sites and len(chosen := _whole_groups(partitioned(records(True), total, folder), wanted)):
        return chosen, "site"
    return _whole_groups(partitioned(records(False), total, folder), wanted), "document"


def _whole_groups(partitions: Iterable[np.ndarray], wanted: int) -> np.ndarray:
    """Numbers of at most `wanted` documents from records [n, 2] of (group, number); groups that are too large are skipped."""
    taken = [np.empty(0, dtype=np.int64)]
    for partition in partitions:
        _, group, sizes = np.unique(partition[:, 0], return_inverse=True, return_counts=True)
        chosen = []
        for place in np.flatnonzero(sizes <= wanted).tolist():  # in the order of their hashes
            if sizes[place] <= wanted:
                wanted -= int(sizes[place])
                chosen.append(place)
            if not wanted:
                break
        taken.append(partition[np.isin(group, chosen), 1].astype(np.int64))
        if not wanted:
            break
    return np.concatenate(taken)
