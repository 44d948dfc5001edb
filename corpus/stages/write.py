"""The last stage over text: each document of one input file goes to its output file, with its provenance."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.files import json_line, open_whole, read_json, write_json
from corpus.stages.annotate import SAMPLES, Samples
from corpus.stages.parts import StagedFile, columns, read_rows_of, unpack_strings
from corpus.stages.resolve import decisions_of, documents_of, part_paths
from corpus.stages.units import make_unit
from language.base import Language, load_language

DOCUMENTS, HELDOUT, REMOVED = "documents.jsonl.gz", "heldout.jsonl.gz", "removed.jsonl.gz"
SHOWN = 300  # characters of a removed document shown in an example


def write(task: dict[str, Any]) -> dict[str, Any]:
    """Write one file's documents: task has source, licence, number (of the file), plan, folder, digest.

    plan: a JSON file with files, decision, hits, heldout (see corpus.stages.resolve) and reasons.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _write(task, folder))


def _write(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    plan = read_json(task["plan"])
    files = [StagedFile(**file) for file in plan["files"]]
    language = load_language(task["settings"]["language"])
    file, hits = files[task["number"]], plan["hits"][task["number"]]
    items = _task_items(hits) if hits else {}
    names = _final_ids(files, plan["decision"], _survivors(plan["decision"], file))
    samples, removed_by, totals = Samples(SAMPLES), Counter(), Counter()
    with (
        open_whole(folder / DOCUMENTS) as kept_file,
        open_whole(folder / HELDOUT) as heldout_file,
        open_whole(folder / REMOVED) as removed_file,
    ):
        # Not strict: the report counts the documents.
        everything = zip(documents_of(file), _descriptions(file, language), _decisions(plan, file), strict=False)
        for row, (record, what, (decision, held)) in enumerate(everything):
            gone, survivor, copies, cluster, repeated = decision
            document = {
                "id": _final_id(record["id"], repeated, file.label, record["line"]),
                "source": task["source"],
                "text": record["text"],
                "file": file.label,
                "line": record["line"],
                "licence": task["licence"],
                **what,
            }
            if record.get("lines"):
                document["lines_dropped"] = record["lines"]
            if record.get("meta"):
                document["meta"] = record["meta"]
            if survivor >= 0:
                document |= {"copies": copies, "cluster": f"{cluster:016x}"}
            reason = plan["reasons"][gone - 1] if gone else "task_item" if row in items else None
            if reason:
                document["reason"] = reason
                if not document["text"]:
                    document["text"] = record.get("raw", "")
                if row in items:
                    document["of"] = items[row]
                elif survivor not in (-1, file.start + row):
                    document["of"] = names[survivor]
                removed_by[reason] += 1
                totals["removed_characters"] += len(document["text"])
                samples.offer(reason, 0, f"{task['source']}:{file.label}:{record['line']}", _shown(document))
                removed_file.write(json_line(document))
                continue
            kind = "heldout" if held else "kept"
            (heldout_file if kind == "heldout" else kept_file).write(json_line(document))
            totals.update(
                {
                    kind: 1,
                    f"{kind}_characters": len(document["text"]),
                    f"{kind}_words": len(document["text"].split()),
                    "lines_dropped": record.get("lines", 0),
                }
            )
    write_json(folder / "samples.json", samples.chosen())
    return {"removed": dict(sorted(removed_by.items())), "totals": {name: totals[name] for name in sorted(totals)}}


def _task_items(hits: str) -> dict[int, str]:
    rows, what = columns(Path(hits) / "hits.npz", "rows", "what")
    return dict(zip(rows.tolist(), what.tolist(), strict=False))  # a table without rows has one empty string


def _shown(document: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    def show() -> dict[str, Any]:
        note = document.get("of") or f"{document['language']} {document['score']:.2f}"
        return {"text": document["text"][:SHOWN], "note": note}

    return show


def _survivors(decisions: str, file: StagedFile) -> np.ndarray:
    """Numbers of the survivors of this file's removed documents, in order."""
    found = [np.empty(0, dtype=np.int64)]
    for start, decision in decisions_of(decisions, file):
        survivor = decision["survivor"]
        found.append(survivor[(survivor >= 0) & (survivor != np.arange(start, start + len(decision)))])
    return np.unique(np.concatenate(found))


def _decisions(plan: dict[str, Any], file: StagedFile) -> Iterator[tuple[tuple[int, int, int, int, bool], bool]]:
    """The decision on each document (see corpus.stages.resolve.DECISION), and whether it is held out."""
    for start, decision in decisions_of(plan["decision"], file):
        heldout = read_rows_of(Path(plan["heldout"]), start, start + len(decision))
        yield from zip(decision.tolist(), heldout.tolist(), strict=True)


def _descriptions(file: StagedFile, language: Language) -> Iterator[dict[str, Any]]:
    """Measurements of each document that are stored with its text: scripts, language, score, rules, personal data."""
    for annotated, _, count in part_paths([file]):
        table = annotated.with_suffix(".npz")
        rows, scripts, labels, seconds = columns(table, "rows", "script_names", "label_names", "second_names")
        rules, rule_names, personal, personal_names = columns(table, "rules", "rules_names", "personal", "personal_names")
        applied: list[list[str]] = [[] for _ in range(count)]
        hidden: list[dict[str, int]] = [{} for _ in range(count)]
        for row, name, _ in rules.tolist():
            applied[row].append(str(rule_names[name]))
        for row, name, times in personal.tolist():
            hidden[row][str(personal_names[name])] = times
        for row in range(count):
            script = str(scripts[rows["script"][row]])
            what = {
                "script": language.scripts[0] if language.transliteration_rule in applied[row] else script,
                "script_in": script,
                "language": str(labels[rows["label"][row]]),
                "score": float(rows["score"][row]),
                "rules": applied[row],
            }
            if second := str(seconds[rows["second"][row]]):
                what["second_opinion"] = second
            if hidden[row]:
                what["personal_data"] = hidden[row]
            yield what


def _final_id(name: str, repeated: bool, label: str, line: int) -> str:
    return f"{name}-{label}-{line}" if repeated else name


def _final_ids(files: list[StagedFile], decisions: str, wanted: np.ndarray) -> dict[int, str]:
    """Ids of the documents with these numbers, as written to the output."""
    found = {}
    for file in files:
        start = file.start
        for annotated, _, count in part_paths([file]):
            here = wanted[slice(*np.searchsorted(wanted, [start, start + count]))]
            if len(here):
                repeated = read_rows_of(Path(decisions), start, start + count)["repeated"]
                packed, ends, rows = columns(annotated.with_suffix(".npz"), "ids", "id_ends", "rows")
                for number, name in zip(here.tolist(), unpack_strings(packed, ends, here - start), strict=True):
                    line = int(rows["line"][number - start])
                    found[number] = _final_id(name, bool(repeated[number - start]), file.label, line)
            start += count
    return found
