"""The stages of a build over units of work: annotate, decide, lines, duplicates, task items, split, write, report.

Annotate, decide, lines, task items and write have one unit for each input file and run on the engine; the others read the
tables of the whole corpus and run alone.
"""

import os
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest_of, read_json, remove, write_json, write_text
from common.settings import plain
from corpus.language import detection_method
from corpus.mixture import source_rates
from corpus.pages.card import data_card
from corpus.pages.page import html_page
from corpus.reading.sources import Source
from corpus.settings import Corpus
from corpus.stages.annotate import ANNOTATE_SETTINGS, REJECTED, SAMPLES, annotate, merge_samples
from corpus.stages.decide import DECIDE_SETTINGS, common_lines, decide, drop_common_lines
from corpus.stages.engine import Engine, Function, Task
from corpus.stages.parts import MOST_DOCUMENTS, StagedFile
from corpus.stages.resolve import (
    DUPLICATES_SETTINGS,
    SPLIT_SETTINGS,
    find_duplicates,
    find_task_items,
    first_alike,
    fold_keys,
    names_itself,
    read_reasons,
    split,
)
from corpus.stages.units import code_digest, is_done, make_unit, pack_digest, read_manifest, unit_folder
from corpus.stages.write import DOCUMENTS, HELDOUT, REMOVED, write
from language.base import load_language

REPORT, PAGE, CARD = "report.json", "report.html", "card.md"
# Settings that do not change any document: places, engine, and what the sampler does. The contents of the sources and task
# files, and the weight and licence of each source, are in the digest by themselves.
PLACES = ("path", "sources", "weights", "licence", "mixture", "keep_work", "engine", "decontaminate")
# Every other setting is read by a stage, which has it in its digest, or decides in `Stages` whether the build succeeds.
STAGE_SETTINGS = {
    "annotate": ANNOTATE_SETTINGS, "decide": DECIDE_SETTINGS, "lines": ("line_duplicates",),
    "duplicates": DUPLICATES_SETTINGS, "split": SPLIT_SETTINGS, "build": ("max_bad_fraction", "max_other_language"),
}  # fmt: skip


def identity_settings(settings: Corpus) -> dict[str, Any]:
    """The settings that identify a corpus: a corpus moved to another folder is still the same."""
    return {key: value for key, value in plain(settings).items() if key not in PLACES}


def size_of(entry: list[Any]) -> int:
    """Bytes of an input file, from [label, bytes, SHA-256]; 0 if they are not known yet."""
    return entry[1] if isinstance(entry[1], int) else 0


class Stages:
    """The stages of one build, in order. `lasting` are the unit folders to keep when it is done."""

    def __init__(self, settings: Corpus, sources: list[Source], inputs, tasks, work: Path, engine: Engine, origin=None):
        self.settings, self.sources, self.inputs, self.tasks = settings, sources, inputs, tasks
        self.work, self.engine, self.origin = work, engine, origin  # origin: of the page, see common.html.origin_of
        self.lasting: list[Path] = []
        self.digests: dict[str, list[str]] = {}  # of the units of each stage, in order: inputs of the next stage

    def run(self, ignored: list[str]) -> dict[str, Any]:
        """All stages; the finished corpus lies in work/result. Returns its report."""
        settings, sources = self.settings, self.sources
        files = self._annotate()
        decided = self._stage("decide", decide, [
            {"name": file.label, "annotated": file.annotated, "parts": file.parts,
             "settings": self._of(DECIDE_SETTINGS)} for file in files
        ], [[digest] for digest in self.digests["annotate"]])  # fmt: skip
        for file, (folder, summary) in zip(files, decided, strict=True):
            file.decided, file.reasons = folder, summary["reasons"]
        self._check_languages(files, [summary for _, summary in decided])
        lines = self._lines(files) if settings.line_duplicates is not None else []
        ((decisions, facts),) = self._stage("duplicates", find_duplicates, [{
            "name": "duplicates", "files": files, "settings": self._of(DUPLICATES_SETTINGS),
        }], [self.digests["annotate"] + self.digests["decide"] + self.digests.get("lines", [])])  # fmt: skip
        decision = f"{decisions}/decision.npy"
        hits: list[str | None] = [None] * len(files)
        found: list[dict[str, Any]] = []
        if self.tasks:
            paths, sums = [task[0] for task in self.tasks], [task[1] for task in self.tasks]
            done = self._stage("task items", find_task_items, [
                {"name": file.label, "size": file.documents, "tasks": paths, "file": file, "decision": decision,
                 "settings": self._of(("language",))}
                for file in files
            ], [[*sums, str(number), *self.digests["duplicates"]] for number in range(len(files))])  # fmt: skip
            hits, found = [folder for folder, _ in done], [summary for _, summary in done]
        ((halves, ways),) = self._stage("split", split, [{
            "name": "split", "files": files, "decision": decision, "hits": hits, "sources": len(sources),
            "settings": self._of(SPLIT_SETTINGS),
        }], [self.digests["duplicates"] + self.digests.get("task items", [])])  # fmt: skip
        plan = self.work / "plan.json"
        write_json(
            plan,
            {
                "files": [asdict(file) for file in files],
                "decision": decision,
                "hits": hits,
                "heldout": f"{halves}/heldout.npy",
                "reasons": facts["reasons"],
            },
        )
        written = self._stage("write", write, [
            {"name": file.label, "size": file.documents, "source": sources[file.source].name,
             "licence": sources[file.source].licence, "number": number, "plan": str(plan),
             "settings": self._of(("language",))}
            for number, file in enumerate(files)
        ], [[str(number), *self.digests["split"], sources[file.source].name, sources[file.source].licence]
            for number, file in enumerate(files)])  # fmt: skip
        own = [folder for file in files for folder in (file.annotated, file.decided, file.repaired)]
        self.lasting = [Path(folder) for folder in dict.fromkeys([*own, decisions, halves, *hits]) if folder]
        if lines:
            self.lasting += [Path(lines[0])]
        report = self._report(files, facts, ways, found, written, ignored)
        self._put_together(files, written, report)
        return report

    def _of(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in names}

    def _stage(
        self, name: str, function: Function, tasks: list[Task], inputs: list[list[Any]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Run the units of one stage that do not exist yet; (folder, summary) of all, in order.

        inputs: for each task the digests of its inputs. A function sees only the settings in task["settings"], and all of them
        are part of the digest.
        """
        code = code_digest(function.__module__)
        digests, folders, waiting = [], [], []
        for task, made_from in zip(tasks, inputs, strict=True):
            digest = digest_of([name, code, task.get("settings", {}), made_from])
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

    def _annotate(self) -> list[StagedFile]:
        """The first stage over every file, and the check on bad records; returns the files."""
        places = [(number, index) for number, source in enumerate(self.sources) for index in range(len(source.files))]
        tasks, inputs = [], []
        for number, index in places:
            source, entry = self.sources[number], self.inputs[number][index]
            tasks.append({
                "name": str(source.files[index]), "path": str(source.files[index]), "label": source.labels[index],
                "size": size_of(entry), "source": source.name, "options": source.options,
                "settings": self._of(ANNOTATE_SETTINGS),
            })  # fmt: skip
            inputs.append([source.name, source.options, entry, pack_digest(self.settings.language)])
        done = self._stage("annotate", annotate, tasks, inputs)
        files, start = [], 0
        for (number, index), (folder, summary) in zip(places, done, strict=True):
            label = self.sources[number].labels[index]
            files.append(StagedFile(number, label, folder, summary["parts"], start, summary))
            start += files[-1].documents
        if start > MOST_DOCUMENTS:
            raise UserError(f"corpus: {start:,} documents are more than {MOST_DOCUMENTS:,}. Build it in two.")
        for number, source in enumerate(self.sources):
            own = [file.summary for file in files if file.source == number]
            bad, total = sum(sum(one["rejected"].values()) for one in own), sum(one["in"] for one in own)
            if bad > self.settings.max_bad_fraction * total:
                first = [reject for one in own for reject in one["first_rejects"]][:10]
                shown = "\n  ".join(f"{reject['file']}, line {reject['line']}: {reject['reason']}" for reject in first)
                raise UserError(
                    f"corpus: source {source.name!r}: {bad:,} of {total:,} records cannot be read, more than "
                    f"corpus.max_bad_fraction={self.settings.max_bad_fraction:g} allows. The first of them:\n  {shown}\n"
                    "Repair the files, or set corpus.max_bad_fraction higher if the other records suffice."
                )
        return files

    def _check_languages(self, files: list[StagedFile], decided: list[dict[str, Any]]) -> None:
        """UserError for a source with most documents in another language than the corpus."""
        pack, most = load_language(self.settings.language), self.settings.max_other_language
        for number, source in enumerate(self.sources):
            own = [place for place, file in enumerate(files) if file.source == number]
            removed = sum(decided[place]["counts"].get("language", 0) for place in own)
            total = sum(files[place].documents for place in own)
            if removed > most * total:
                read = sum((Counter(files[place].summary["languages"]) for place in own), Counter())
                found = ", ".join(f"{name} {count:,}" for name, count in read.most_common(4))
                raise UserError(
                    f"corpus: source {source.name!r}: {removed:,} of {total:,} documents are not {pack.title} by "
                    f"{detection_method(pack)} (found: {found}), more than corpus.max_other_language={most:g} allows. Set "
                    "language=NAME if the text is in another language, corpus.language_check=false to keep all of it, or a "
                    "higher corpus.max_other_language to keep the rest."
                )

    def _lines(self, files: list[StagedFile]) -> list[str]:
        """Find common lines of each source and remove them from all documents but the first with each."""
        least = self.settings.line_duplicates
        basis = self.digests["annotate"] + self.digests["decide"]
        digest = digest_of(["common lines", code_digest("corpus.stages.decide"), least, basis])
        folder = unit_folder(self.work / "common-lines", digest)

        def make(hidden: Path) -> dict[str, Any]:
            stays = names_itself(first_alike(files, fold_keys, None, hidden)) & (read_reasons(files)[0] == 0)
            for number in range(len(self.sources)):
                own = [file for file in files if file.source == number]
                names, first = common_lines(own, stays, least, hidden)
                np.savez(hidden / f"{number:05d}.npz", names=names, first=first)
            return {}

        make_unit(folder, digest, make)
        tasks = [
            {"name": file.label, "size": file.documents, "annotated": file.annotated, "decided": file.decided,
             "parts": file.parts, "start": file.start, "common": str(folder / f"{file.source:05d}.npz"),
             "settings": self._of(("language",))}
            for file in files
        ]  # fmt: skip
        done = self._stage("lines", drop_common_lines, tasks, [[digest, str(number)] for number in range(len(files))])
        for file, (repaired, _) in zip(files, done, strict=True):
            file.repaired = repaired
        return [str(folder)]

    def _report(self, files, facts, ways, found, written, ignored: list[str]) -> dict[str, Any]:
        entries = {}
        for number, source in enumerate(self.sources):
            own = [place for place, file in enumerate(files) if file.source == number]
            entry = _entry(source, [files[place].summary for place in own], [written[place][1] for place in own])
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
                raise RuntimeError(f"corpus: {name}: {lost} documents are unaccounted for; this is a defect of the build.")
        if not total["kept"]:
            counts = {**total["removed"], **total["rejected"]}
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
            raise UserError(
                f"corpus: none of {total['in']:,} documents survived ({reasons or 'the files are empty'}). "
                "Look at the text that corpus.path points to, or loosen corpus.min_characters or corpus.language_check."
            )
        mixture = self.settings.mixture
        words, weights = (np.array([entry[key] for entry in entries.values()]) for key in ("words", "weight"))
        rates = source_rates(words, weights, mixture.temperature, mixture.max_repeats)
        shares = rates * words / (rates * words).sum()
        for entry, rate, share in zip(entries.values(), rates, shares, strict=True):
            entry |= {"epochs": round(float(rate), 4), "share": round(float(share), 4)}
        return {
            "language": self.settings.language, "language_by": detection_method(load_language(self.settings.language)),
            "sources": entries, "total": total, "settings": identity_settings(self.settings), "mixture": plain(mixture),
            "tasks": ["/".join(Path(task[0]).parts[-2:]) for task in self.tasks], "ignored_files": ignored,
        }  # fmt: skip

    def _put_together(self, files: list[StagedFile], written: list[tuple[str, dict[str, Any]]], report: dict[str, Any]) -> None:
        """Assemble the result folder from the units' outputs: concatenated .gz files are one valid .gz file."""
        result = self.work / "result"
        remove(result)
        (result / "documents").mkdir(parents=True)
        for number, source in enumerate(self.sources):
            own = [Path(written[place][0]) / DOCUMENTS for place, file in enumerate(files) if file.source == number]
            _join(own, result / "documents" / f"{source.name}.jsonl.gz")
        _join([Path(folder) / HELDOUT for folder, _ in written], result / HELDOUT)
        _join([Path(folder) / REMOVED for folder, _ in written], result / REMOVED)
        _join([Path(file.annotated) / REJECTED for file in files], result / REJECTED)
        samples: dict[str, Any] = {}
        for number, source in enumerate(self.sources):
            folders = [(file.annotated, written[place][0]) for place, file in enumerate(files) if file.source == number]
            samples[source.name] = [
                merge_samples((read_json(Path(pair[side]) / "samples.json") for pair in folders), SAMPLES) for side in (0, 1)
            ]
        write_json(result / REPORT, report)
        write_text(result / PAGE, html_page(report, samples, self.origin))
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
    """One source's entry of the report, from the summaries of its files."""
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
    """Largest first, then by name, so that equal counts are always in the same order."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
