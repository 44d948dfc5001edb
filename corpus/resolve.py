"""What needs the whole corpus at once: duplicates, repeated ids, task items, the held-out split. Tables only, no text.

Documents are numbered through, in the order of sources, files and lines. `files` lists every input file: source (its
number), label, annotated, decided and mended (unit folders, mended or null), parts (documents of each), start (number of
its first document).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpus.decontamination import TaskIndex
from corpus.duplicates import Store, exact_groups, near_clusters, survivors
from corpus.parts import columns, read_texts, save_array
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


def read_rows(files: list[dict[str, Any]], *names: str) -> list[np.ndarray]:
    """Named fields of every document's row (see corpus.annotate.ROW), each [documents]."""
    tables: list[list[np.ndarray]] = [[] for _ in names]
    for _, stem, _ in part_paths(files):
        rows = columns(stem.with_suffix(".npz"), "rows")
        for table, name in zip(tables, names, strict=True):
            table.append(rows[name])
    return [np.concatenate(table) if table else np.empty(0) for table in tables]


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
    high, low, signed, characters, special = read_rows(files, "digest0", "digest1", "signed", "characters", "special")
    reason[(reason == 0) & (characters < max(1, task["min_characters"]))] = line  # all of it was common lines
    inside = np.flatnonzero(reason == 0)
    fate = np.zeros(len(reason), dtype=FATE)
    fate["survivor"] = -1
    same = exact_groups(np.stack([high[inside], low[inside]], axis=1))
    spelling = survivors(same, special[inside], characters[inside])
    cluster = same
    if agreement is not None:
        single = np.flatnonzero((same == np.arange(len(same))) & signed[inside])
        stems = [stem for _, stem, _ in part_paths(files)]
        store = Store(
            [np.load(f"{stem}.signatures.npy", mmap_mode="r") for stem in stems],
            [np.load(f"{stem}.bands.npy", mmap_mode="r") for stem in stems],
        )
        joined = np.arange(len(same))
        joined[single] = single[near_clusters(store, inside[single], agreement)]
        cluster = joined[same]
    best = spelling == np.arange(len(same))
    kept = survivors(cluster, best, characters[inside])
    sizes = np.bincount(cluster, minlength=len(cluster))
    fate["survivor"][inside] = inside[kept]
    fate["copies"][inside] = sizes[cluster]
    fate["cluster"][inside] = high[inside][kept]
    gone = kept != np.arange(len(kept))
    reason[inside[gone]] = np.where(same[gone] == same[kept[gone]], exact, near)
    fate["reason"] = reason
    fate["repeated"] = _repeated_ids(files)
    save_array(folder / "fate.npy", fate)
    source = np.repeat([file["source"] for file in files], [sum(file["parts"]) for file in files])
    return {"reasons": reasons, "cluster_sizes": _cluster_sizes(source, fate)}


def _cluster_sizes(source: np.ndarray, fate: np.ndarray) -> list[dict[str, int]]:
    """For each source, clusters by size: {"1": n, "2": n, "3-4": n, ...}; a cluster counts where its survivor is."""
    found = []
    for number in range(int(source.max()) + 1 if len(source) else 0):
        sizes = fate["copies"][(source == number) & (fate["reason"] == 0)]
        counts = np.bincount(np.searchsorted(SIZES, sizes, side="right") - 1, minlength=len(SIZES))
        found.append({name: int(count) for name, count in zip(_class_names(), counts, strict=True) if count})
    return found


def _class_names() -> list[str]:
    ends = [*(size - 1 for size in SIZES[1:]), None]
    pairs = zip(SIZES, ends, strict=True)
    return [f"{low}" if low == high else f"{low}-{high}" if high else f"{low} or more" for low, high in pairs]


def _repeated_ids(files: list[dict[str, Any]]) -> np.ndarray:
    """Which documents' ids an earlier document of the same source has."""
    (ids,) = read_rows(files, "id")
    source = np.repeat([file["source"] for file in files], [sum(file["parts"]) for file in files]).astype(np.int64)
    order = np.lexsort((ids, source))
    again = (ids[order][1:] == ids[order][:-1]) & (source[order][1:] == source[order][:-1])
    repeated = np.zeros(len(ids), dtype=bool)
    repeated[order[1:][again]] = True
    return repeated


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
    survives = np.load(task["fate"], mmap_mode="r")["reason"][file["start"] : file["start"] + sum(file["parts"])] == 0
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
        mended = {}
        if stem != annotated:
            mended = {record["row"]: record for record in read_texts(stem.with_suffix(".jsonl.zst"))}
        for row, record in enumerate(read_texts(annotated.with_suffix(".jsonl.zst"))):
            if row in mended:
                record |= {"text": mended[row]["text"], "lines": mended[row]["lines"]}
            yield record


def split(task: dict[str, Any]) -> dict[str, Any]:
    """The held-out documents, as heldout.npy [documents] bool: task has files, fate, hits, sources, fraction, most.

    hits: for each file the folder of its task items, or null. The summary says how each source was divided.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _split(task, folder))


def _split(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    files = task["files"]
    free = np.load(task["fate"], mmap_mode="r")["reason"] == 0
    for file, hits in zip(files, task["hits"], strict=True):
        if hits:
            free[columns(Path(hits) / "hits.npz", "rows") + file["start"]] = False
    digests, sites = read_rows(files, "digest0", "site")
    heldout = np.zeros(len(free), dtype=bool)
    ways = []
    for number in range(task["sources"]):
        spans = [(file["start"], file["start"] + sum(file["parts"])) for file in files if file["source"] == number]
        members = np.concatenate([np.arange(0), *(np.arange(begin, end)[free[begin:end]] for begin, end in spans)])
        wanted = min(task["most"], round(task["fraction"] * len(members)))
        if task["most"] and task["fraction"] and len(members) >= HELDOUT_FLOOR:
            wanted = max(1, wanted)
        chosen, way = choose_heldout(digests[members], sites[members], wanted)
        heldout[members[chosen]] = True
        ways.append(way if wanted else "none")
    save_array(folder / "heldout.npy", heldout)
    return {"ways": ways}


def choose_heldout(digests: np.ndarray, sites: np.ndarray, wanted: int) -> tuple[np.ndarray, str]:
    """Which of the documents of one source are held out: (mask [n] bool, "site" or "document").

    digests, sites [n] uint64, site 0 where none is known. By a salted hash of the site, whole sites at a time, those
    that are larger than what is wanted left out; documents without a site stand for themselves. Where no site is small
    enough, by document. The choice depends on no place, so it hardly moves when a source grows.
    """
    chosen = np.zeros(len(digests), dtype=bool)
    if not wanted:
        return chosen, "none"
    own = mix(digests ^ HELDOUT_SALT)
    if sites.any():
        group = np.where(sites > 0, mix(sites ^ HELDOUT_SALT), own)
        _, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
        left, taken = wanted, []
        for place in np.flatnonzero(sizes <= wanted).tolist():  # in the order of their hashes
            if sizes[place] <= left:
                left -= int(sizes[place])
                taken.append(place)
            if not left:
                break
        if taken:
            return np.isin(inverse, taken), "site"
    chosen[np.argsort(own, kind="stable")[:wanted]] = True
    return chosen, "document"
