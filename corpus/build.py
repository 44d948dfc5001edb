"""Sources in, one clean, deduplicated, documented corpus out: every document that came in is kept or has its reason.

Two passes. The first reads, cleans and judges each document and notes what duplicates need: a digest and a signature of
its fold key. Then it is known which documents survive, and the second pass writes each to the one file it belongs to.
Everything is written in a folder beside the result and swapped in by a rename, so that a build that fails or is killed
leaves the earlier result as it was.
"""

import contextlib
import fcntl
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.files import digest_of, json_line, open_whole, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from corpus.clean import clean_text
from corpus.duplicates import Signatures, choose_survivors, clusters, key_digest, near_pairs
from corpus.language import identify
from corpus.privacy import hide_personal
from corpus.report import table
from corpus.sources import ROOT, Reject, Source, find_sources, read_records
from language.azerbaijani import SPECIAL_LETTERS, fold_key

# Every setting with its default; conf/corpus/*.yaml explains them. A key that is not here is an error.
DEFAULTS: dict[str, Any] = {
    "path": None,
    "sources": None,
    "weights": None,
    "licence": None,
    "min_characters": 10,
    "language_check": True,
    "personal_data": True,
    "near_duplicates": 0.7,
    "heldout_fraction": 0.01,
    "heldout_max": 500,
}
HELDOUT_FLOOR = 20  # a source with this many documents gives at least one to the held-out set
HELDOUT_SALT = b"held-out"
REPORT, MANIFEST, HELDOUT, REMOVED, REJECTED = (
    "report.json", "manifest.json", "heldout.jsonl.gz", "removed.jsonl.gz", "rejected.jsonl.gz",
)  # fmt: skip
OUR_NAMES = {REPORT, MANIFEST, HELDOUT, REMOVED, REJECTED, "documents"}
_SPECIAL = re.compile(f"[{SPECIAL_LETTERS}]")


def build_corpus(settings: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """Build the corpus that `settings` (conf/corpus) describes in the folder `out`, print and return its report.

    Reused when `out` already holds the corpus of the same code, settings and input. Raises UserError for settings or
    input that cannot give a corpus; `out` is then as it was.
    """
    unknown = set(settings) - set(DEFAULTS)
    if unknown:
        raise UserError(f"corpus.{sorted(unknown)[0]}: no such setting. There are {', '.join(DEFAULTS)}.")
    settings = {**DEFAULTS, **settings}
    _check_numbers(settings)
    out = Path(out)
    sources, ignored = find_sources(settings)
    work, old, lock = (out.with_name(f".{out.name}.{word}") for word in ("building", "old", "lock"))
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # a second build of the same folder waits, then reuses what the first made
        if old.exists() and not out.exists():  # killed between the two renames below
            old.rename(out)
        strangers = sorted({entry.name for entry in out.iterdir()} - OUR_NAMES) if out.is_dir() else []
        if strangers or (out.exists() and not out.is_dir()):
            stranger = (strangers or [out.name])[0]
            raise UserError(f"{out}: holds something that is no corpus ({stranger}). Choose another folder.")
        digest = digest_of({"code": _code(), "settings": _essence(settings), "input": _inputs(sources)})
        if _is_whole(out, digest):
            report = read_json(out / REPORT)
            print(f"corpus: reused {out} ({report['total']['kept']:,} documents)")
            return report
        for leftover in (work, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        try:
            report = _build(settings, sources, ignored, work)
            names = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
            write_json(work / MANIFEST, {
                "digest": digest,
                "files": {name: sha256_file(work / name) for name in names},
                "sizes": {name: (work / name).stat().st_size for name in names},
            })  # fmt: skip
            if out.exists():
                out.rename(old)
            work.rename(out)
        except OSError as error:
            raise UserError(
                f"{error.filename or out}: cannot be written ({error.strerror}). An earlier corpus is untouched. "
                "Make room or choose another folder."
            ) from None
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
            for leftover in (work, old):
                shutil.rmtree(leftover, ignore_errors=True)
    print(table(report))
    print(f"corpus: written to {out}")
    return report


def read_documents(out: str | Path, source: str) -> Iterator[dict[str, Any]]:
    """The kept training documents of one source, in their order; raises UserError when the corpus lacks it."""
    for _, document in read_jsonl(_documents_file(Path(out), source)):
        yield document


def list_sources(out: str | Path) -> list[str]:
    """Names of the sources of a built corpus, in the order of the config."""
    return list(read_json(Path(out) / REPORT)["sources"])


def heldout_path(out: str | Path) -> Path:
    """The file with the held-out documents of all sources."""
    return Path(out) / HELDOUT


def _documents_file(out: Path, source: str) -> Path:
    return out / "documents" / f"{source}.jsonl.gz"


def _check_numbers(settings: dict[str, Any]) -> None:
    def check(key: str, low: float, high: float, whole: bool) -> None:
        value = settings[key]
        kinds, kind = (int, "whole number") if whole else (int | float, "number")
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise UserError(f"corpus.{key}={value}: expected a {kind} from {low} to {high:g}. Correct the setting.")

    check("min_characters", 0, 1e9, True)
    check("heldout_max", 0, 1e9, True)
    check("heldout_fraction", 0, 0.5, False)
    if settings["near_duplicates"] is not None:
        check("near_duplicates", 0.5, 1, False)


def _code() -> str:
    """Digest of the source text of the two rooms that decide what a corpus is."""
    files = sorted([*(ROOT / "corpus").glob("*.py"), *(ROOT / "language").glob("*.py")])
    return digest_of([[file.name, file.read_text(encoding="utf-8")] for file in files])


def _essence(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without places: a corpus moved to another folder is the same corpus."""
    return {key: value for key, value in settings.items() if key not in ("path", "sources", "weights", "licence")}


def _inputs(sources: list[Source]) -> list[Any]:
    inputs = []
    for source in sources:
        try:
            files = [
                [label, path.stat().st_size, sha256_file(path)] for path, label in zip(source.files, source.labels, strict=True)
            ]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror}). Check its permissions.") from None
        inputs.append([source.name, source.weight, source.licence, files])
    return inputs


def _is_whole(out: Path, digest: str) -> bool:
    """Whether `out` holds the corpus of this digest with every file in its recorded size."""
    try:
        manifest = read_json(out / MANIFEST)
        sizes = manifest["sizes"]
        return manifest["digest"] == digest and all((out / name).stat().st_size == sizes[name] for name in sizes)
    except (UserError, OSError, KeyError, TypeError):
        return False


def _build(settings: dict[str, Any], sources: list[Source], ignored: list[str], work: Path) -> dict[str, Any]:
    """Both passes, into the folder `work`; returns the report."""
    work.mkdir(parents=True)
    staged = work / "staged"
    staged.mkdir()
    entries = {source.name: _empty_entry(source) for source in sources}
    keys = _Keys()
    with open_whole(work / REJECTED) as rejected:
        for number, source in enumerate(sources):
            _read_source(settings, source, entries[source.name], keys, staged / str(number), rejected)
    verdicts = _decide(settings, sources, keys)
    (work / "documents").mkdir()
    with open_whole(work / HELDOUT) as heldout, open_whole(work / REMOVED) as removed:
        for number, source in enumerate(sources):
            _write_source(source, entries[source.name], verdicts, staged / str(number), work, heldout, removed)
    shutil.rmtree(staged)
    report = {"sources": entries, "total": _total(entries), "settings": _essence(settings), "ignored_files": ignored}
    for name, entry in [*entries.items(), ("total", report["total"])]:
        set_aside = sum(entry["removed"].values()) + sum(entry["rejected"].values())
        lost = entry["in"] - entry["kept"] - entry["heldout"] - set_aside
        if lost:
            raise RuntimeError(f"corpus: {name}: {lost} documents unaccounted for; this is a defect of the build.")
    if not report["total"]["kept"]:
        total = report["total"]
        counts = {**total["removed"], **total["rejected"]}
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
        raise UserError(
            f"corpus: none of {total['in']:,} documents survived ({reasons or 'the files are empty'}). "
            "Look at the text that corpus.path points to, or loosen corpus.min_characters or corpus.language_check."
        )
    write_json(work / REPORT, report)
    return report


def _empty_entry(source: Source) -> dict[str, Any]:
    return {
        "in": 0, "kept": 0, "heldout": 0, "removed": {}, "rejected": {}, "words": 0, "characters": 0,
        "heldout_characters": 0, "rules": {}, "personal_data": {}, "scripts": {}, "weight": source.weight,
        "licence": source.licence, "files": source.labels,
    }  # fmt: skip


def _total(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for key in ("in", "kept", "heldout", "words", "characters", "heldout_characters"):
        total[key] = sum(entry[key] for entry in entries.values())
    for key in ("removed", "rejected", "rules", "personal_data", "scripts"):
        total[key] = _sorted(sum((Counter(entry[key]) for entry in entries.values()), Counter()))
    return total


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    """Largest first, then by name: the same counts always read the same."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class _Keys:
    """What the duplicate stage must know of each document that passed the first pass, in their order."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.ranks: list[tuple] = []  # (special letters, characters): see _decide
        self.has_signature: list[bool] = []
        self.signatures = Signatures()
        self.owners: list[str] = []  # source name
        self.ids: list[str] = []


def _read_source(settings, source: Source, entry: dict[str, Any], keys: _Keys, staged: Path, rejected) -> None:
    """First pass over one source: clean and judge each document, stage it, and note its key if it is still in."""
    rejects, rules, personal, scripts = Counter(), Counter(), Counter(), Counter()
    seen: set[str] = set()
    with open(staged, "wb") as file:
        bar = tqdm(read_records(source), desc=f"corpus: {source.name}", unit=" documents", disable=None, leave=False)
        for item in bar:
            entry["in"] += 1
            if isinstance(item, Reject):
                rejects[item.reason] += 1
                rejected.write(json_line({"source": source.name, **item._asdict()}))
                continue
            identifier = item.id or f"{source.name}-{item.file}-{item.line}"
            if identifier in seen:
                identifier = f"{identifier}-{item.file}-{item.line}"
            seen.add(identifier)
            text, touched = clean_text(item.text)
            rules.update(touched)
            verdict = identify(text)
            scripts[verdict.script] += 1
            if settings["personal_data"]:
                text, found = hide_personal(text)
                personal.update(found)
            document = {
                "id": identifier, "source": source.name, "text": text, "file": item.file, "line": item.line,
                "script": verdict.script, "score": verdict.score,
            }  # fmt: skip
            if not text:
                document |= {"reason": "empty_after_cleaning", "text": item.text}
            elif verdict.script == "none":
                document["reason"] = "no_letters"
            elif len(text) < settings["min_characters"]:
                document["reason"] = "too_short"
            elif settings["language_check"] and verdict.label != "az":
                document["reason"] = "language"
            else:
                key = fold_key(text)
                keys.digests.append(key_digest(key))
                keys.ranks.append((len(_SPECIAL.findall(text)), len(text)))
                keys.has_signature.append(settings["near_duplicates"] is not None and keys.signatures.add(key))
                keys.owners.append(source.name)
                keys.ids.append(identifier)
            file.write(json_line(document))
    entry["rejected"], entry["rules"] = _sorted(rejects), _sorted(rules)
    entry["personal_data"], entry["scripts"] = _sorted(personal), _sorted(scripts)


def _decide(settings: dict[str, Any], sources: list[Source], keys: _Keys) -> Iterator[dict[str, Any]]:
    """One verdict per noted document, in order: {"keep": "train"|"heldout", "copies": n} or {"reason", "of": id}.

    Among documents of one fold key the one in full spelling survives (most of ə ğ ı ö ş ü ç, then the longest, then the
    first): the others are its copies in capitals, in ASCII or in Cyrillic. Among near duplicates, the longest.
    """
    count = len(keys.digests)
    first: dict[bytes, int] = {}
    exact = np.array([first.setdefault(digest, index) for index, digest in enumerate(keys.digests)], dtype=np.int64)
    best_spelling = choose_survivors(exact, keys.ranks)
    cluster = exact
    if settings["near_duplicates"] is not None and any(keys.has_signature):
        rows = np.flatnonzero(keys.has_signature)
        # Equal keys have equal signatures, so one document per key stands for all of them.
        single = exact[rows] == rows
        pairs = rows[single][near_pairs(keys.signatures.finish()[single], settings["near_duplicates"])]
        cluster = clusters(count, pairs)[exact]
    best = set(best_spelling.values())
    lengths = [rank[1] if index in best else -1 for index, rank in enumerate(keys.ranks)]
    survivor = choose_survivors(cluster, lengths)
    sizes = Counter(cluster.tolist())
    heldout = _choose_heldout(settings, sources, keys, set(survivor.values()))
    for index in range(count):
        kept = survivor[int(cluster[index])]
        if kept == index:
            yield {"keep": "heldout" if index in heldout else "train", "copies": sizes[int(cluster[index])]}
        else:
            same = exact[index] == exact[kept]
            yield {"reason": "exact_duplicate" if same else "near_duplicate", "of": keys.ids[kept]}


def _choose_heldout(settings: dict[str, Any], sources: list[Source], keys: _Keys, survivors: set[int]) -> set[int]:
    """Indices of the held-out documents: per source those whose salted digests are the smallest.

    The choice depends on a document's own fold key and not on its place, so it hardly moves when a source grows.
    """
    chosen: set[int] = set()
    by_source: dict[str, list[int]] = {source.name: [] for source in sources}
    for index in sorted(survivors):
        by_source[keys.owners[index]].append(index)
    for members in by_source.values():
        wanted = min(settings["heldout_max"], round(settings["heldout_fraction"] * len(members)))
        if settings["heldout_max"] and settings["heldout_fraction"] and len(members) >= HELDOUT_FLOOR:
            wanted = max(1, wanted)
        members.sort(key=lambda index: hashlib.blake2b(keys.digests[index], key=HELDOUT_SALT, digest_size=8).digest())
        chosen.update(members[:wanted])
    return chosen


def _write_source(source: Source, entry, verdicts, staged: Path, work: Path, heldout, removed) -> None:
    """Second pass over one source: each staged document to the file that its verdict names."""
    reasons: Counter = Counter()

    def training_documents() -> Iterator[dict[str, Any]]:
        with open(staged, "rb") as file:
            for line in tqdm(file, desc=f"corpus: writing {source.name}", unit=" documents", disable=None, leave=False):
                document = json.loads(line)
                verdict = {} if "reason" in document else next(verdicts)
                if "reason" in document or "reason" in verdict:
                    document |= verdict
                    reasons[document["reason"]] += 1
                    removed.write(json_line(document))
                    continue
                document["copies"] = verdict["copies"]
                if verdict["keep"] == "heldout":
                    entry["heldout"] += 1
                    entry["heldout_characters"] += len(document["text"])
                    heldout.write(json_line(document))
                    continue
                entry["words"] += len(document["text"].split())
                entry["characters"] += len(document["text"])
                yield document

    with contextlib.closing(training_documents()) as documents:
        entry["kept"] = write_jsonl(_documents_file(work, source.name), documents)
    entry["removed"] = _sorted(reasons)
