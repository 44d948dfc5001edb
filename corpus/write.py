"""The last stage over text: every document of one input file to the one file that it belongs to, with its provenance."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.files import json_line, open_whole, read_json, write_json
from corpus.annotate import SAMPLES, Samples
from corpus.parts import columns, read_rows_of, unpack_strings
from corpus.resolve import documents_of, fates_of, part_paths
from corpus.units import make_unit

DOCUMENTS, HELDOUT, REMOVED = "documents.jsonl.gz", "heldout.jsonl.gz", "removed.jsonl.gz"
SHOWN = 300  # characters of a removed document that an example shows


def write(task: dict[str, Any]) -> dict[str, Any]:
    """Write one file's documents: task has source, licence, number (of the file), plan, folder, digest.

    plan: a JSON file with files, fate, hits, heldout (see corpus.resolve) and reasons.
    """
    return make_unit(Path(task["folder"]), task["digest"], lambda folder: _write(task, folder))


def _write(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    plan = read_json(task["plan"])
    file, hits = plan["files"][task["number"]], plan["hits"][task["number"]]
    items = _task_items(hits) if hits else {}
    names = _final_ids(plan["files"], plan["fate"], _survivors(plan["fate"], file))
    samples, removed_by, totals = Samples(SAMPLES), Counter(), Counter()
    with (
        open_whole(folder / DOCUMENTS) as kept_file,
        open_whole(folder / HELDOUT) as heldout_file,
        open_whole(folder / REMOVED) as removed_file,
    ):
        everything = zip(documents_of(file), _descriptions(file), _decisions(plan, file), strict=False)  # the report counts
        for row, (record, what, (fate, held)) in enumerate(everything):
            gone, survivor, copies, cluster, repeated = fate
            document = {
                "id": _final_id(record["id"], repeated, file["label"], record["line"]),
                "source": task["source"], "text": record["text"], "file": file["label"], "line": record["line"],
                "licence": task["licence"], **what,
            }  # fmt: skip
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
                elif survivor not in (-1, file["start"] + row):
                    document["of"] = names[survivor]
                removed_by[reason] += 1
                totals["removed_characters"] += len(document["text"])
                samples.offer(reason, 0, f"{task['source']}:{file['label']}:{record['line']}", _shown(document))
                removed_file.write(json_line(document))
                continue
            kind = "heldout" if held else "kept"
            (heldout_file if kind == "heldout" else kept_file).write(json_line(document))
            totals.update({
                kind: 1, f"{kind}_characters": len(document["text"]), f"{kind}_words": len(document["text"].split()),
                "lines_dropped": record.get("lines", 0),
            })  # fmt: skip
    write_json(folder / "samples.json", samples.chosen())
    return {"removed": dict(sorted(removed_by.items())), "totals": {name: totals[name] for name in sorted(totals)}}


def _task_items(hits: str) -> dict[int, str]:
    rows, what = columns(Path(hits) / "hits.npz", "rows", "what")
    return dict(zip(rows.tolist(), what.tolist(), strict=False))  # without rows one empty string stands there


def _shown(document: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    def show() -> dict[str, Any]:
        note = document.get("of") or f"{document['language']} {document['score']:.2f}"
        return {"text": document["text"][:SHOWN], "note": note}

    return show


def _survivors(fates: str, file: dict[str, Any]) -> np.ndarray:
    """Numbers of the documents that stand for others of this file, in order."""
    found = [np.empty(0, dtype=np.int64)]
    for start, fate in fates_of(fates, file):
        survivor = fate["survivor"]
        found.append(survivor[(survivor >= 0) & (survivor != np.arange(start, start + len(fate)))])
    return np.unique(np.concatenate(found))


def _decisions(plan: dict[str, Any], file: dict[str, Any]) -> Iterator[tuple[tuple[int, int, int, int, bool], bool]]:
    """What was decided of each document: its fate (see corpus.resolve.FATE), and whether it is held out."""
    for start, fate in fates_of(plan["fate"], file):
        heldout = read_rows_of(Path(plan["heldout"]), start, start + len(fate))
        yield from zip(fate.tolist(), heldout.tolist(), strict=True)


def _descriptions(file: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What was measured of each document and belongs beside its text: scripts, language, score, rules, personal data."""
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
                "script": "Latn" if "cyrillic_to_latin" in applied[row] else script, "script_in": script,
                "language": str(labels[rows["label"][row]]), "score": float(rows["score"][row]), "rules": applied[row],
            }  # fmt: skip
            if second := str(seconds[rows["second"][row]]):
                what["second_opinion"] = second
            if hidden[row]:
                what["personal_data"] = hidden[row]
            yield what


def _final_id(name: str, repeated: bool, label: str, line: int) -> str:
    return f"{name}-{label}-{line}" if repeated else name


def _final_ids(files: list[dict[str, Any]], fates: str, wanted: np.ndarray) -> dict[int, str]:
    """Ids of the documents with these numbers, as they are written."""
    found = {}
    for file in files:
        start = file["start"]
        for annotated, _, count in part_paths([file]):
            here = wanted[slice(*np.searchsorted(wanted, [start, start + count]))]
            if len(here):
                repeated = read_rows_of(Path(fates), start, start + count)["repeated"]
                packed, ends, rows = columns(annotated.with_suffix(".npz"), "ids", "id_ends", "rows")
                for number, name in zip(here.tolist(), unpack_strings(packed, ends, here - start), strict=True):
                    line = int(rows["line"][number - start])
                    found[number] = _final_id(name, bool(repeated[number - start]), file["label"], line)
            start += count
    return found
