"""The stages of a build over units of work: annotate, decide, lines, duplicates, task items, split, write, report.

Annotate, decide, lines, task items and write have one unit an input file and run on the engine; the others see the tables
of the whole corpus and run alone.
"""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest_of, read_json, write_json, write_text
from corpus.annotate import ANNOTATE_SETTINGS, REJECTED, SAMPLES, annotate, merge_samples
from corpus.card import data_card
from corpus.decide import DECIDE_SETTINGS, common_lines, decide, mend_lines
from corpus.engine import Engine, Function, Task
from corpus.mixture import source_rates
from corpus.page import html_page
from corpus.parts import MOST_DOCUMENTS
from corpus.resolve import find_duplicates, find_task_items, first_alike, fold_keys, names_itself, read_reasons, split
from corpus.sources import Source
from corpus.units import code_digest, is_done, make_unit, read_manifest, unit_folder
from corpus.write import DOCUMENTS, HELDOUT, REMOVED, write

REPORT, PAGE, CARD = "report.json", "report.html", "card.md"
# What changes neither a document nor its file, and so is no part of the corpus' identity.
PLACES = ("path", "sources", "weights", "licence", "mixture", "keep_work", "engine", "decontaminate")


def essence(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what a corpus is: one moved to another folder is the same corpus."""
    return {key: value for key, value in settings.items() if key not in PLACES}


def size_of(entry: list[Any]) -> int:
    """Bytes of an input file, from [label, bytes, SHA-256]; 0 where they are not known yet."""
    return entry[1] if isinstance(entry[1], int) else 0


class Stages:
    """The stages of one build, in order. `lasting` are the unit folders worth keeping when it is done."""

    def __init__(self, settings: dict[str, Any], sources: list[Source], inputs, tasks, work: Path, engine: Engine):
        self.settings, self.sources, self.inputs, self.tasks = settings, sources, inputs, tasks
        self.work, self.engine = work, engine
        self.lasting: list[Path] = []
        self.digests: dict[str, list[str]] = {}  # of the units of each stage, in order: what the next stage stands on

    def run(self, ignored: list[str]) -> dict[str, Any]:
        """All stages; the finished corpus lies in work/result. Returns its report."""
        settings, sources = self.settings, self.sources
        files = self._annotate()
        decided = self._stage("decide", decide, [
            {"name": file["label"], "annotated": file["annotated"], "parts": file["parts"],
             "settings": self._of(DECIDE_SETTINGS)} for file in files
        ], [[digest] for digest in self.digests["annotate"]])  # fmt: skip
        for file, (folder, summary) in zip(files, decided, strict=True):
            file |= {"decided": folder, "reasons": summary["reasons"]}
        lines = self._lines(files) if settings["line_duplicates"] is not None else []
        ((fates, facts),) = self._stage("duplicates", find_duplicates, [{
            "name": "duplicates", "files": files, "near_duplicates": settings["near_duplicates"],
            "min_characters": settings["min_characters"],
        }], [self.digests["annotate"] + self.digests["decide"] + self.digests.get("lines", [])])  # fmt: skip
        fate = f"{fates}/fate.npy"
        hits: list[str | None] = [None] * len(files)
        found: list[dict[str, Any]] = []
        if self.tasks:
            paths, sums = [task[0] for task in self.tasks], [task[1] for task in self.tasks]
            done = self._stage("task items", find_task_items, [
                {"name": file["label"], "size": sum(file["parts"]), "tasks": paths, "file": file, "fate": fate}
                for file in files
            ], [[*sums, str(number), *self.digests["duplicates"]] for number in range(len(files))])  # fmt: skip
            hits, found = [folder for folder, _ in done], [summary for _, summary in done]
        ((halves, ways),) = self._stage("split", split, [{
            "name": "split", "files": files, "fate": fate, "hits": hits, "sources": len(sources),
            "fraction": settings["heldout_fraction"], "most": settings["heldout_max"],
        }], [self.digests["duplicates"] + self.digests.get("task items", [])])  # fmt: skip
        plan = self.work / "plan.json"
        write_json(
            plan, {"files": files, "fate": fate, "hits": hits, "heldout": f"{halves}/heldout.npy", "reasons": facts["reasons"]}
        )
        written = self._stage("write", write, [
            {"name": file["label"], "size": sum(file["parts"]), "source": sources[file["source"]].name,
             "licence": sources[file["source"]].licence, "number": number, "plan": str(plan)}
            for number, file in enumerate(files)
        ], [[str(number), *self.digests["split"], sources[file["source"]].name, sources[file["source"]].licence]
            for number, file in enumerate(files)])  # fmt: skip
        self.lasting = [
            Path(folder) for folder in {file[kind] for file in files for kind in ("annotated", "decided", "mended")} - {None}
        ]
        self.lasting += [Path(folder) for folder in [fates, halves, *hits] if folder]
        if lines:
            self.lasting += [Path(lines[0])]
        report = self._report(files, facts, ways, found, written, ignored)
        self._put_together(files, written, report)
        return report

    def _of(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.settings[name] for name in names}

    def _stage(
        self, name: str, function: Function, tasks: list[Task], inputs: list[list[Any]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Run the units of one stage that are not there yet; (folder, summary) of all, in order.

        inputs: for each task what it is made from, by digests; its own settings are part of the digest too.
        """
        code = code_digest(function.__module__)
        digests, folders, waiting = [], [], []
        for task, made_from in zip(tasks, inputs, strict=True):
            own = {
                key: task[key] for key in ("settings", "near_duplicates", "min_characters", "fraction", "most") if key in task
            }
            digest = digest_of([name, code, own, made_from])
            folder = unit_folder(self.work / name.replace(" ", "-"), digest)
            task |= {"folder": str(folder), "digest": digest}
            digests.append(digest)
            folders.append(folder)
            if not is_done(folder):
                waiting.append(task)
        if waiting:
            self.engine.run(function, waiting, name)
        self.digests[name] = digests
        return [(str(folder), read_manifest(folder)["summary"]) for folder in folders]

    def _annotate(self) -> list[dict[str, Any]]:
        """The first stage over every file, and the check on bad records; files as corpus.resolve wants them."""
        places = [(number, index) for number, source in enumerate(self.sources) for index in range(len(source.files))]
        tasks, inputs = [], []
        for number, index in places:
            source, entry = self.sources[number], self.inputs[number][index]
            tasks.append({
                "name": str(source.files[index]), "path": str(source.files[index]), "label": source.labels[index],
                "size": size_of(entry), "source": source.name, "options": source.options,
                "settings": self._of(ANNOTATE_SETTINGS),
            })  # fmt: skip
            inputs.append([source.name, source.options, entry])
        done = self._stage("annotate", annotate, tasks, inputs)
        files, start = [], 0
        for (number, index), (folder, summary) in zip(places, done, strict=True):
            files.append({
                "source": number, "label": self.sources[number].labels[index], "annotated": folder, "mended": None,
                "parts": summary["parts"], "start": start, "summary": summary,
            })  # fmt: skip
            start += sum(summary["parts"])
        if start > MOST_DOCUMENTS:
            raise UserError(f"corpus: {start:,} documents are more than {MOST_DOCUMENTS:,}. Build it in two.")
        for number, source in enumerate(self.sources):
            own = [file["summary"] for file in files if file["source"] == number]
            bad, total = sum(sum(one["rejected"].values()) for one in own), sum(one["in"] for one in own)
            if bad > self.settings["max_bad_fraction"] * total:
                first = [reject for one in own for reject in one["first_rejects"]][:10]
                shown = "\n  ".join(f"{reject['file']}, line {reject['line']}: {reject['reason']}" for reject in first)
                raise UserError(
                    f"corpus: source {source.name!r}: {bad:,} of {total:,} records cannot be read, more than "
                    f"corpus.max_bad_fraction={self.settings['max_bad_fraction']:g} allows. The first of them:\n  {shown}\n"
                    "Repair the files, or set corpus.max_bad_fraction higher if the rest is worth having."
                )
        return files

    def _lines(self, files: list[dict[str, Any]]) -> list[str]:
        """Common lines of each source, taken out of all documents but the first that has each."""
        least = self.settings["line_duplicates"]
        basis = self.digests["annotate"] + self.digests["decide"]
        digest = digest_of(["common lines", code_digest("corpus.decide"), least, basis])
        folder = unit_folder(self.work / "common-lines", digest)

        def make(hidden: Path) -> dict[str, Any]:
            stays = names_itself(first_alike(files, fold_keys, None, hidden)) & (read_reasons(files)[0] == 0)
            for number in range(len(self.sources)):
                own = [file for file in files if file["source"] == number]
                names, first = common_lines(own, stays, least, hidden)
                np.savez(hidden / f"{number:05d}.npz", names=names, first=first)
            return {}

        make_unit(folder, digest, make)
        tasks = [
            {"name": file["label"], "size": sum(file["parts"]), "annotated": file["annotated"], "decided": file["decided"],
             "parts": file["parts"], "start": file["start"], "common": str(folder / f"{file['source']:05d}.npz")}
            for file in files
        ]  # fmt: skip
        done = self._stage("lines", mend_lines, tasks, [[digest, str(number)] for number in range(len(files))])
        for file, (mended, summary) in zip(files, done, strict=True):
            file |= {"mended": mended, "lines": summary}
        return [str(folder)]

    def _report(self, files, facts, ways, found, written, ignored: list[str]) -> dict[str, Any]:
        entries = {}
        for number, source in enumerate(self.sources):
            own = [place for place, file in enumerate(files) if file["source"] == number]
            entry = _entry(source, [files[place]["summary"] for place in own], [written[place][1] for place in own])
            sizes = facts["cluster_sizes"]
            entry["cluster_sizes"] = sizes[number] if number < len(sizes) else {}
            entry["task_items"] = _sorted(sum((Counter(found[place]["kinds"]) for place in own if found), Counter()))
            entry["heldout_by"] = ways["ways"][number]
            entries[source.name] = entry
        total = _total(entries)
        for name, entry in [*entries.items(), ("total", total)]:
            set_aside = sum(entry["removed"].values()) + sum(entry["rejected"].values())
            lost = entry["in"] - entry["kept"] - entry["heldout"] - set_aside
            if lost:
                raise RuntimeError(f"corpus: {name}: {lost} documents unaccounted for; this is a defect of the build.")
        if not total["kept"]:
            counts = {**total["removed"], **total["rejected"]}
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
            raise UserError(
                f"corpus: none of {total['in']:,} documents survived ({reasons or 'the files are empty'}). "
                "Look at the text that corpus.path points to, or loosen corpus.min_characters or corpus.language_check."
            )
        mixture = self.settings["mixture"]
        words, weights = (np.array([entry[key] for entry in entries.values()]) for key in ("words", "weight"))
        rates = source_rates(words, weights, mixture["temperature"], mixture["max_repeats"])
        shares = rates * words / (rates * words).sum()
        for entry, rate, share in zip(entries.values(), rates, shares, strict=True):
            entry |= {"epochs": round(float(rate), 4), "share": round(float(share), 4)}
        return {
            "sources": entries, "total": total, "settings": essence(self.settings), "mixture": mixture,
            "tasks": ["/".join(Path(task[0]).parts[-2:]) for task in self.tasks], "ignored_files": ignored,
        }  # fmt: skip

    def _put_together(
        self, files: list[dict[str, Any]], written: list[tuple[str, dict[str, Any]]], report: dict[str, Any]
    ) -> None:
        """The result folder from the units' outputs: .gz files one after another are one .gz file."""
        result = self.work / "result"
        shutil.rmtree(result, ignore_errors=True)
        (result / "documents").mkdir(parents=True)
        for number, source in enumerate(self.sources):
            own = [Path(written[place][0]) / DOCUMENTS for place, file in enumerate(files) if file["source"] == number]
            _join(own, result / "documents" / f"{source.name}.jsonl.gz")
        _join([Path(folder) / HELDOUT for folder, _ in written], result / HELDOUT)
        _join([Path(folder) / REMOVED for folder, _ in written], result / REMOVED)
        _join([Path(file["annotated"]) / REJECTED for file in files], result / REJECTED)
        samples: dict[str, Any] = {}
        for number, source in enumerate(self.sources):
            folders = [(file["annotated"], written[place][0]) for place, file in enumerate(files) if file["source"] == number]
            samples[source.name] = [
                merge_samples((read_json(Path(pair[side]) / "samples.json") for pair in folders), SAMPLES) for side in (0, 1)
            ]
        write_json(result / REPORT, report)
        write_text(result / PAGE, html_page(report, samples))
        write_text(result / CARD, data_card(report))


def _join(pieces: list[Path], out: Path) -> None:
    with open(out, "wb") as target:
        for piece in pieces:
            with open(piece, "rb") as file:
                shutil.copyfileobj(file, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())


COUNTERS = ("removed", "rejected", "rules", "rule_documents", "personal_data", "scripts", "languages")
NUMBERS = ("in", "kept", "heldout", "words", "characters", "heldout_characters", "removed_characters", "lines_dropped")


def _entry(source: Source, read: list[dict[str, Any]], written: list[dict[str, Any]]) -> dict[str, Any]:
    """One source's line of the report, from the summaries of its files."""
    totals = sum((Counter(one["totals"]) for one in written), Counter())
    counts = {name: sum((Counter(one[name]) for one in read), Counter()) for name in COUNTERS if name != "removed"}
    counts["removed"] = sum((Counter(one["removed"]) for one in written), Counter())
    return {
        "in": sum(one["in"] for one in read), "kept": totals["kept"], "heldout": totals["heldout"],
        "words": totals["kept_words"], "characters": totals["kept_characters"],
        "heldout_characters": totals["heldout_characters"], "removed_characters": totals["removed_characters"],
        "lines_dropped": totals["lines_dropped"],
        **{name: _sorted(counts[name]) for name in COUNTERS}, "weight": source.weight, "licence": source.licence,
        "files": source.labels, "first_rejects": [reject for one in read for reject in one["first_rejects"]][:10],
    }  # fmt: skip


def _total(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {key: sum(entry[key] for entry in entries.values()) for key in NUMBERS}
    for key in (*COUNTERS, "task_items"):
        total[key] = _sorted(sum((Counter(entry[key]) for entry in entries.values()), Counter()))
    sizes = sum((Counter(entry["cluster_sizes"]) for entry in entries.values()), Counter())
    total["cluster_sizes"] = dict(sorted(sizes.items(), key=lambda item: int(item[0].split()[0].split("-")[0])))
    return total


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    """Largest first, then by name: the same counts always read the same."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
