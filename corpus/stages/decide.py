"""The second stage: thresholds on the measurements give each document a reason for removal, or none. No text is read.

Then lines shared by many documents of a source are found and removed from all of these but the first.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpus.cleaning.lines import drop_lines
from corpus.matching.hash_partitions import partitioned
from corpus.matching.signatures import SLOTS, Signatures, band_keys, key_digest, mix
from corpus.quality import broken_rules, find_preset
from corpus.stages.annotate import ROW
from corpus.stages.parts import StagedFile, TextWriter, columns, read_texts, save_array
from corpus.stages.units import make_unit
from language.base import Language, load_language

DECIDE_SETTINGS = ("language", "min_characters", "language_check", "language_score", "quality")
# Share of the documents of a site (or of a source without sites). In the statutes of the real set, the notice of an earlier
# wording is in 3.4 % of the documents and is boilerplate; "üç ildən beş ilədək müddətə azadlıqdan ..." is in 0.2 % and is law.
COMMON_SHARE = 0.01
# The score assumes equal priors, but most of a source is in the corpus' language. So a document labelled as another language
# is kept when the corpus' own language has at least this probability. Of 90 comments labelled as another language, 48 were
# Azerbaijani (misspelt, a line of slang, names); 43 of these and 6 of the others reach it.
DOUBT = 0.1


def decide(task: dict[str, Any]) -> dict[str, Any]:
    """Reasons for the documents of one annotated file: task has annotated (folder), parts, settings, folder, digest.

    Writes NNNNN.npy, one number for each document: 0 is kept, otherwise the index in summary["reasons"], from 1.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _decide(task, folder))


def _decide(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    settings = task["settings"]
    quality = dict(settings["quality"] or {})
    language = load_language(settings["language"])
    rules = find_preset(quality.pop("preset", "none"), language, **quality)
    reasons: dict[str, int] = {}
    counts: Counter = Counter()
    for number in range(len(task["parts"])):
        path = Path(task["annotated"]) / f"{number:05d}.npz"
        rows, scripts, labels, values, names = columns(path, "rows", "script_names", "label_names", "signals", "signal_names")
        other = (labels != language.code)[rows["label"]] & (rows["score"] < DOUBT)
        if settings["language_score"] is not None:
            other |= rows["score"] < settings["language_score"]
        measured = dict(zip(names.tolist(), values.T, strict=True))
        tests = [
            ("empty_after_cleaning", rows["characters"] == 0),
            ("no_letters", (scripts == "none")[rows["script"]]),
            ("too_short", rows["characters"] < settings["min_characters"]),
            ("language", other & settings["language_check"]),
            *((f"quality_{rule}", broken) for rule, broken in broken_rules(measured, rules)),
        ]
        decided = np.zeros(len(rows), dtype=np.uint8)
        for reason, fails in tests:  # the first that fails is the reason
            first = fails & (decided == 0)
            if first.any():
                decided[first] = reasons.setdefault(reason, len(reasons) + 1)
                counts[reason] += int(first.sum())
        save_array(folder / f"{number:05d}.npy", decided)
    return {"reasons": list(reasons), "counts": dict(sorted(counts.items()))}


def common_lines(files: list[StagedFile], stays: np.ndarray, least: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Names of the common lines of one source (see `line_names`), and the first document with each.

    A line is common if it is in at least `least` documents of a site and in COMMON_SHARE of them; documents without a site
    form one site. files: annotated, parts and start (number of the first document) of each file of the source; stays
    [documents of the corpus]: which documents count (not removed, and the first with their fold key). Memory does not grow
    with the number of lines: large data goes through unnamed files in `folder`.
    """
    total, sites = 0, [np.empty((2, 0), dtype=np.uint64)]
    for path, start in _line_tables(files):
        rows, counts = columns(path, "rows", "line_counts")
        total += int(counts.sum())
        names, sizes = np.unique(rows["site"][stays[start : start + len(rows)]], return_counts=True)
        sites.append(np.stack([names, sizes.astype(np.uint64)]))
    names, sizes = np.concatenate(sites, axis=1)
    names, place = np.unique(names, return_inverse=True)
    sizes = np.bincount(place, weights=sizes)  # documents of each site

    def records() -> Iterator[np.ndarray]:
        for path, start in _line_tables(files):
            keys, counts, rows = columns(path, "line_keys", "line_counts", "rows")
            owner = np.repeat(np.arange(len(counts)), counts)
            wanted = stays[start : start + len(counts)][owner]
            owner, keys = owner[wanted], keys[wanted]
            site, numbers = rows["site"][owner], (owner + start).astype(np.uint64)
            yield np.stack([line_names(keys, site), numbers, np.searchsorted(names, site).astype(np.uint64)], axis=1)

    found, first_of = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for partition in partitioned(records(), total, folder):
        distinct, first, counts = np.unique(partition[:, 0], return_index=True, return_counts=True)
        common = counts >= np.maximum(least, COMMON_SHARE * sizes[partition[first, 2]])
        found.append(distinct[common])
        first_of.append(partition[first[common], 1].astype(np.int64))
    return np.concatenate(found), np.concatenate(first_of)


def line_names(keys: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """One number for each line and its site, [n]."""
    return mix(keys ^ sites.astype(np.uint64))


def _line_tables(files: list[StagedFile]) -> Iterator[tuple[Path, int]]:
    for file in files:
        start = file.start
        for number, count in enumerate(file.parts):
            yield Path(file.annotated) / f"{number:05d}.npz", start
            start += count


def drop_common_lines(task: dict[str, Any]) -> dict[str, Any]:
    """Remove common lines from one file's documents; task has annotated, decided, parts, start, common (.npz), settings.

    For a part with changed documents: NNNNN.jsonl.zst with {row, text, lines} of those, and NNNNN.npz, .bands.npy and
    .signatures.npy, which replace the annotated ones. Parts without a change have no file.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _drop_common_lines(task, folder))


def _drop_common_lines(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    common, first = columns(Path(task["common"]), "names", "first")
    start, lines, documents = task["start"], 0, 0
    for number, count in enumerate(task["parts"]):
        stem = f"{number:05d}"
        annotated = Path(task["annotated"]) / stem
        decided = np.load(Path(task["decided"]) / f"{stem}.npy")
        line_keys, line_counts, rows = columns(annotated.with_suffix(".npz"), "line_keys", "line_counts", "rows")
        owner = np.repeat(np.arange(count), line_counts)
        doomed = np.zeros(len(line_keys), dtype=bool)
        if len(common):
            names = line_names(line_keys, rows["site"][owner])
            place = np.minimum(np.searchsorted(common, names), len(common) - 1)
            doomed = (common[place] == names) & (first[place] != owner + start) & (decided[owner] == 0)
        if doomed.any():
            doomed_lines = owner[doomed], line_keys[doomed]
            changed, dropped = _drop_lines_of_part(
                annotated, folder / stem, *doomed_lines, load_language(task["settings"]["language"])
            )
            documents, lines = documents + changed, lines + dropped
        start += count
    return {"documents": documents, "lines": lines}


def _drop_lines_of_part(annotated: Path, out: Path, owner: np.ndarray, keys: np.ndarray, language: Language) -> tuple[int, int]:
    rows = columns(annotated.with_suffix(".npz"), "rows")
    signatures = np.load(f"{annotated}.signatures.npy")
    by_row: dict[int, set[int]] = {}
    for row, key in zip(owner.tolist(), keys.tolist(), strict=True):
        by_row.setdefault(row, set()).add(key)
    texts, signer, signed, lines = TextWriter(out.with_suffix(".jsonl.zst")), Signatures(), [], 0
    for row, record in enumerate(read_texts(annotated.with_suffix(".jsonl.zst"))):
        if row not in by_row:
            continue
        text, dropped = drop_lines(record["text"], frozenset(by_row[row]), language)
        text, lines = text.strip("\n"), lines + dropped
        texts.write({"row": row, "text": text, "lines": dropped})
        key = language.fold_key(text)
        rows["characters"][row], rows["words"][row] = len(text), len(text.split())
        rows["special"][row] = sum(map(text.count, language.special_letters))
        rows["digest0"][row], rows["digest1"][row] = np.frombuffer(key_digest(key), "<u8")
        rows["signed"][row] = signer.add(key)
        signatures[row] = np.zeros(SLOTS, np.uint32)
        if rows["signed"][row]:
            signed.append(row)
    texts.close()
    signatures[signed] = signer.finish()
    np.savez(out.with_suffix(".npz"), rows=rows.astype(ROW))
    save_array(Path(f"{out}.signatures.npy"), signatures)
    save_array(Path(f"{out}.bands.npy"), band_keys(signatures))
    return len(by_row), lines
