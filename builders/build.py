"""Make a labelled data set from raw material: the set, its card, and every record that was set aside.

    python -m builders.build kind=next_sentence files='texts/*.jsonl' name=nsp
    python -m builders.build kind=ner_silver files=dump.xml.bz2 ner_silver.types=titles.tsv
    python -m builders.build kind=next_sentence files=dump.xml.bz2 language=turkish overlap=runs/mine/corpus
    python -m builders.build kind=topics files=titles.csv columns.label=section
    python -m builders.build kind=multiple_choice files='exams/*.docx' columns.question=Stem columns.label=Key
    python -m builders.build kind=translate files=squad/*.json translate.task=qa translate.command='python mine.py'

Kinds: next_sentence, topics, multiple_choice, ner_silver, translate (a file of builders/ each). runs/NAME/set holds data/train,
dev and test, which finetune.py reads as they are, README.md (the card), report.json (the same in numbers) and aside.jsonl. The
same input, settings and code give the same bytes; a set that is complete already is not made again, and one that was
interrupted begins anew.
"""

import importlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from builders.card import card
from builders.difficulty import difficulty
from builders.sets import Built, find_inputs, inputs_of, read_back, reasons, write_parts
from builders.settings import Builder
from common.code import code_files
from common.errors import UserError
from common.files import (
    digest_of,
    put_in_place,
    read_json,
    remove,
    sha256_file,
    write_bytes,
    write_json,
    write_jsonl,
    write_text,
)
from common.launch import launch, resolved
from common.locks import hold
from evaluation.leakage import build_index, overlaps
from language.base import load_language
from tasks.base import kind_of
from tasks.load import SPLITS, Task

PLACE_KEYS = ("name", "out")  # of the settings: where the set goes, not what it is


def build(config: DictConfig) -> int:
    """One set; returns the exit code."""
    settings = resolved(config, Builder)
    out = Path(settings["out"])
    kind = importlib.import_module(f"builders.{settings['kind']}")
    language = load_language(settings["language"])
    with hold(out):
        more = kind.also_read(settings) if hasattr(kind, "also_read") else []  # tables that decide beside the material
        inputs = inputs_of([*find_inputs(settings["files"]), *more])
        deciding = {key: value for key, value in settings.items() if key not in PLACE_KEYS}
        digest = digest_of([deciding, inputs, code_files("builders.build", f"builders.{settings['kind']}")])
        if is_whole(out, digest):
            print(f"already complete: {out}")
            return 0
        built = kind.build(settings, language)
        beside = out.with_name(f".{out.name}.part")
        remove(beside)
        report = write_set(beside, built, settings, {"digest": digest, "inputs": inputs})
        put_in_place(beside, out)
    print(*lines_of(report), sep="\n")
    ending = "conll" if built.kind == "tagging" else "jsonl"
    files = " ".join(f"task.{split}={out}/data/{split}.{ending}" for split in SPLITS)
    more = "".join(f" task.{key}={str(value).lower() if value is True else value}" for key, value in built.task.items())
    print(f"{out}/README.md is its card. python finetune.py checkpoint=FOLDER task.kind={built.kind} {files}{more}")
    return 0


def is_whole(out: Path, digest: str) -> bool:
    """Whether `out` holds the set of this digest with every file as it was written."""
    try:
        report = read_json(out / "report.json")
        files = {path.name: sha256_file(path) for path in sorted((out / "data").iterdir())}
        return report["digest"] == digest and report["files"] == files and (out / "README.md").exists()
    except (UserError, OSError, KeyError, TypeError):
        return False


def write_set(folder: Path, built: Built, settings: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Write everything of a set into `folder` and return its report."""
    files = write_parts(folder, built)
    task = read_back(built, files, settings["name"].rpartition("/")[2], settings["language"])
    leakage = leaks(task, settings, folder) if settings["overlap"] else None
    report = {
        "name": task.name,
        "builder": settings["kind"],
        "kind": built.kind,
        "language": settings["language"],
        "licence": settings["licence"],
        "provenance": settings["provenance"],
        "examples": {split: len(built.parts[split]) for split in SPLITS},
        "task": built.task,
        **known,
        "files": {path.name: sha256_file(path) for path in sorted(files.values())},
        "counts": built.counts,
        "aside": {reason: number for reason, number, _ in reasons(built.aside)},
        "facts": built.facts,
        "difficulty": difficulty(task, settings["baseline_rows"]),
        "leakage": leakage,
        "samples": settings["samples"],
        "settings": {key: settings[key] for key in ("seed", "shares", "columns", settings["kind"]) if key in settings},
    }
    report["made"] = {  # from what this was written: builders.annotate writes the set anew after people have checked it
        "settings": {key: value for key, value in settings.items() if key not in PLACE_KEYS},
        "sections": built.sections,
        "beware": built.beware,
        "by": built.by,
    }
    report["beware"] = [*built.beware, *doubts(task, report)]
    write_jsonl(folder / "aside.jsonl", built.aside)
    for name, content in built.more_files.items():
        write_bytes(folder / name, content)
    write_json(folder / "report.json", report)
    write_text(folder / "README.md", card(built, task, report, load_language(settings["language"])))
    return report


def leaks(task: Task, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """How much of the test part stands in the corpus; the rows go to overlap.jsonl, which evaluation.report takes."""
    items = [(example["id"], "\n".join(kind_of(task.kind).lines(example))) for example in task.test]
    index = build_index([(task.name, items)], load_language(settings["language"]), settings["overlap_words"])
    rows = overlaps(index, settings["overlap"])
    write_jsonl(folder / "overlap.jsonl", rows)
    known = [row["overlap"] for row in rows if row["overlap"] is not None]
    return {
        "corpus": settings["overlap"],
        "words": settings["overlap_words"],
        "items": len(rows),
        "touched": sum(bool(share > 0) for share in known),
        "half": sum(bool(share >= 0.5) for share in known),
        "short": len(rows) - len(known),
    }


def doubts(task: Task, report: dict[str, Any]) -> list[str]:
    """What every kind is looked through for: leaks between the parts and into the corpus, baselines that are too good."""
    lines = [note for note in task.notes if "share their text or group" in note or "repeat another's whole text" in note]
    lines += [note for note in task.notes if "never in train" in note]
    if report["leakage"] and report["leakage"]["half"]:
        lines.append(
            f"{report['leakage']['half']:,} of {report['leakage']['items']:,} test items stand in the corpus by half or more: "
            "give evaluation.report --overlap overlap.jsonl, which scores the others apart."
        )
    scores = {row["baseline"]: row for row in report["difficulty"]["rows"]}
    floor = max((row["high"] for name, row in scores.items() if name in ("majority", "all_positive")), default=1.0)
    for name in ("cues", "blind"):
        if name in scores and scores[name]["low"] > floor:
            what = "surface cues alone" if name == "cues" else "TF-IDF that does not see what is asked"
            lines.append(
                f"{what} get {100 * scores[name]['score']:.1f}, more than the best constant answer "
                f"({100 * scores['majority']['score']:.1f}): print that row beside every model's."
            )
    if not report["licence"]:
        lines.append("No licence is stated.")
    return lines


def lines_of(report: dict[str, Any]) -> list[str]:
    """The set in a few lines for the terminal."""
    sizes = "/".join(f"{number:,}" for number in report["examples"].values())
    put = ", ".join(f"{number:,} {reason}" for reason, number in report["aside"].items()) or "nothing"
    metric = report["difficulty"]["metric"]
    scores = ", ".join(f"{row['baseline']} {100 * row['score']:.1f}" for row in report["difficulty"]["rows"])
    smallest = report["difficulty"]["smallest_difference"]
    found = "not measured" if smallest is None else f"{100 * smallest:.1f} points"
    return [
        f"{report['name']}: {sizes} examples in train/dev/test; set aside: {put}",
        f"test {metric}: {scores}; smallest difference that can be resolved: {found}",
        *(f"beware: {line}" for line in report["beware"]),
    ]


if __name__ == "__main__":
    launch(build, "build", Builder)
