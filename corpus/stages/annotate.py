"""The first stage: one input file to cleaned documents with all measurements, without any decision.

Read, repair, identify script and language, transliterate, hide personal data, measure, compute signatures. Everything that
a threshold may apply to is a column beside the text, so a threshold may change without reading a file again.
"""

import contextlib
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from common.files import json_line, open_whole, write_json
from corpus.clean import clean_text
from corpus.cleaning.lines import line_keys
from corpus.cleaning.privacy import hide_personal
from corpus.language import identify, second_opinion
from corpus.matching.signatures import SLOTS, Signatures, band_keys, key_digest
from corpus.quality import SIGNALS, signals
from corpus.reading.sources import Record, Reject, read_file
from corpus.stages.parts import PART_CHARACTERS, PART_DOCUMENTS, TextWriter, pack_strings, save_array
from corpus.stages.units import make_unit
from language.base import Language, load_language

REJECTED = "rejected.jsonl.gz"
SAMPLES = 20  # examples shown for each rule
CONTEXT = 60  # an example shows this many characters before a change and twice as many after it
FIRST_REJECTS = 10


def annotate(task: dict[str, Any]) -> dict[str, Any]:
    """Annotate one input file into the unit folder task["folder"]; returns the summary.

    task: source, path, label, options (of the source), settings (those in ANNOTATE_SETTINGS), folder, digest.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _annotate(task, folder))


ANNOTATE_SETTINGS = ("language", "personal_data", "transliterate", "second_opinion")


def _annotate(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    totals = {name: Counter() for name in ("rejected", "rules", "rule_documents", "personal_data", "scripts", "languages")}
    samples = Samples(SAMPLES)
    language = load_language(task["settings"]["language"])
    parts = [_Part(folder, 0, language)]
    count = 0
    first_rejects: list[dict[str, Any]] = []
    with open_whole(folder / REJECTED) as rejected:
        for item in read_file(Path(task["path"]), task["label"], {**task["options"], "language": language.name}):
            count += 1
            if isinstance(item, Reject):
                totals["rejected"][item.reason] += 1
                reject = {"source": task["source"], **item._asdict()}
                rejected.write(json_line(reject))
                if len(first_rejects) < FIRST_REJECTS:
                    first_rejects.append(reject)
                continue
            if parts[-1].is_full():
                parts[-1].close()
                parts.append(_Part(folder, len(parts), language))
            parts[-1].add(item, task, totals, samples)
    parts[-1].close()
    write_json(folder / "samples.json", samples.chosen())
    return {
        "in": count,
        "parts": [part.count for part in parts],
        "first_rejects": first_rejects,
        **{name: dict(sorted(counter.items())) for name, counter in totals.items()},
    }


class _Part:
    """One part under construction."""

    def __init__(self, folder: Path, number: int, language: Language):
        self.language = language
        self.stem = folder / f"{number:05d}"
        self.count = self._characters = 0
        self._texts = TextWriter(self.stem.with_suffix(".jsonl.zst"))
        self._signatures = Signatures()
        self._ids: list[str] = []
        self._line_keys: list[int] = []  # of one document after another
        self._line_counts: list[int] = []
        self._signals: list[list[float]] = []
        self._rows: list[tuple] = []
        self._names: dict[str, dict[str, int]] = {"script": {}, "label": {}, "second": {}, "rules": {}, "personal": {}}
        self._counts: dict[str, list[tuple[int, int, int]]] = {"rules": [], "personal": []}  # row, name, times

    def is_full(self) -> bool:
        return self.count >= PART_DOCUMENTS or self._characters >= PART_CHARACTERS

    def add(self, item: Record, task: dict[str, Any], totals: dict[str, Counter], samples: "Samples") -> None:
        """Clean, identify, measure and store one document."""
        settings, language = task["settings"], self.language
        text, rules = clean_text(item.text, language)
        verdict = identify(text, language)
        in_other_script = verdict.label == language.code and verdict.script in language.scripts[1:]
        if settings["transliterate"] and in_other_script and language.transliteration:
            text, rules = language.transliterate(text), rules | {language.transliteration_rule: 1}
        cleaned = text
        personal: dict[str, int] = {}
        if settings["personal_data"]:
            text, personal = hide_personal(text, language)
        second = (second_opinion(text) or ("",))[0] if settings["second_opinion"] else ""
        place = f"{task['source']}:{item.file}:{item.line}"
        private = language if settings["personal_data"] else None
        for rule in rules:
            samples.offer(rule, len(rules), place, lambda: change(item.text, cleaned, private))
        for kind in personal:
            samples.offer(kind, len(personal), place, lambda mark=f"<{kind}>": {"after": around(text, mark)})
        if rules:
            totals["rules"].update(rules)
            totals["rule_documents"].update(rules.keys())
        if personal:
            totals["personal_data"].update(personal)
        totals["scripts"][verdict.script] += 1
        totals["languages"][verdict.label] += 1
        key, folded = language.fold_lines(text)
        digest = key_digest(key)
        identifier = item.id or f"{task['source']}-{item.file}-{item.line}"
        record = {"id": identifier, "text": text, "line": item.line}
        if not text:
            record["raw"] = item.text
        if item.meta:
            record["meta"] = item.meta
        self._texts.write(record)
        for name, counts in (("rules", rules), ("personal", personal)):
            self._counts[name] += [(self.count, self._code(name, what), times) for what, times in counts.items()]
        signed = self._signatures.add(key)
        self._rows.append(
            (
                item.line,
                len(text),
                len(text.split()),
                sum(map(text.count, language.special_letters)),
                signed,
                verdict.score,
                self._code("script", verdict.script),
                self._code("label", verdict.label),
                self._code("second", second),
                int.from_bytes(digest[:8], "little"),
                int.from_bytes(digest[8:], "little"),
                number_of(identifier),
                number_of(site_of(item.meta)),
            )
        )
        self._signals.append(list(signals(text, language).values()))
        keys = line_keys(text, folded)
        self._line_keys += keys
        self._line_counts.append(len(keys))
        self._ids.append(identifier)
        self.count += 1
        self._characters += len(text)

    def _code(self, kind: str, name: str) -> int:
        return self._names[kind].setdefault(name, len(self._names[kind]))

    def close(self) -> None:
        """Write the columns: ROW describes those with one value for each document; the others are described here."""
        self._texts.close()
        table = np.array(self._rows, dtype=ROW)
        signatures = np.zeros((self.count, SLOTS), dtype=np.uint32)
        signatures[table["signed"]] = self._signatures.finish()
        ids, ends = pack_strings(self._ids)
        np.savez(
            self.stem.with_suffix(".npz"),
            rows=table,
            ids=ids,
            id_ends=ends,
            line_keys=np.array(self._line_keys, dtype=np.uint64),
            line_counts=np.array(self._line_counts, dtype=np.int32),
            signals=np.array(self._signals, dtype=np.float64).reshape(self.count, len(SIGNALS)),
            signal_names=np.array(SIGNALS),
            **{f"{kind}_names": np.array(list(names) or [""]) for kind, names in self._names.items()},
            **{kind: np.array(counts, dtype=np.int64).reshape(-1, 3) for kind, counts in self._counts.items()},
        )
        save_array(Path(f"{self.stem}.signatures.npy"), signatures)
        save_array(Path(f"{self.stem}.bands.npy"), band_keys(signatures))


ROW = np.dtype(
    [
        ("line", "<i8"),
        ("characters", "<i4"),
        ("words", "<i4"),
        ("special", "<i4"),
        ("signed", "?"),
        ("score", "<f8"),
        ("script", "<i2"),
        ("label", "<i2"),
        ("second", "<i2"),  # numbers in script_names, label_names, second_names
        ("digest0", "<u8"),
        ("digest1", "<u8"),
        ("id", "<u8"),
        ("site", "<u8"),  # hashes; site 0: unknown
    ]
)


def number_of(name: str) -> int:
    """A 64-bit number for a name; 0 for the empty one."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") if name else 0


def site_of(meta: dict[str, str]) -> str:
    """The site of a document: meta's `site`, or the host of its `url` without www; "" if unknown."""
    site = str(meta.get("site") or "")
    if not site and meta.get("url"):
        with contextlib.suppress(ValueError):
            site = urlsplit(str(meta["url"])).hostname or ""
    return site.lower().removeprefix("www.")


class Samples:
    """A few examples for each name, chosen by a fixed rule whatever the order in which they are offered."""

    def __init__(self, count: int):
        self._count = count
        self._heaps: dict[str, list[tuple]] = {}

    def offer(self, name: str, others: int, place: str, show: Any) -> None:
        """Offer an example; `show()` makes it if accepted. Ranked by fewest `others` (clearest change), then by hash."""
        rank = number_of(f"{name} {place}")
        heap = self._heaps.setdefault(name, [])
        entry = (-others, -rank)
        if len(heap) < self._count:
            heapq.heappush(heap, (*entry, {"rank": [others, rank], "place": place, **show()}))
        elif entry > heap[0][:2]:
            heapq.heapreplace(heap, (*entry, {"rank": [others, rank], "place": place, **show()}))

    def chosen(self) -> dict[str, list[dict[str, Any]]]:
        """All examples by name, best first."""
        return {
            name: sorted((entry[2] for entry in heap), key=lambda e: e["rank"]) for name, heap in sorted(self._heaps.items())
        }


def merge_samples(chosen: Iterable[dict[str, list[dict[str, Any]]]], count: int) -> dict[str, list[dict[str, Any]]]:
    """The best `count` of each name from several units' samples."""
    best: dict[str, list[dict[str, Any]]] = {}
    for one in chosen:
        for name, examples in one.items():
            best[name] = sorted([*best.get(name, []), *examples], key=lambda e: (e["rank"], e["place"]))[:count]
    return dict(sorted(best.items()))


def change(before: str, after: str, private: Language | None = None) -> dict[str, str]:
    """The first difference of two texts with some text around it; personal data of `private` is hidden."""
    at, end = 0, min(len(before), len(after))
    while at < end:
        middle = (at + end + 1) // 2
        at, end = (middle, end) if before[:middle] == after[:middle] else (at, middle - 1)
    begin = max(0, at - CONTEXT)
    shown = {"before": before[begin : at + 2 * CONTEXT], "after": after[begin : at + 2 * CONTEXT]}
    return {side: hide_personal(text, private)[0] for side, text in shown.items()} if private else shown


def around(text: str, mark: str) -> str:
    """The text around the first `mark`."""
    at = max(0, text.find(mark))
    return text[max(0, at - CONTEXT) : at + 2 * CONTEXT]
