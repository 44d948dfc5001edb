"""People check a built set: a sample as sheets, their agreement, a list for a third person, and the checked set.

    python -m builders.annotate sample runs/nsp/set --out runs/nsp/people --examples 200
    python -m builders.annotate agree runs/nsp/people
    python -m builders.annotate adjudicate runs/nsp/people --out runs/nsp/checked

`sample` writes annotator-1.csv and annotator-2.csv, in which the column "answer" is filled by two people without seeing the
set's own answer or each other's. Where a kind has no classes or options (tagging, qa), they say yes or no to the answer
shown; ? stands for an item that nobody can answer. `agree` reads the sheets and writes agreement.md, agreement.json and
adjudicate.csv, the items on which the two differ or both contradict the set. Once its "answer" is filled, `adjudicate` writes
the set anew: answers corrected, items with ? (or no) set aside, everything measured again.
"""

import argparse
import random
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from builders.build import write_set
from builders.card import shown, table
from builders.sets import Built, aside, inputs_of
from builders.sheets import read_sheet, write_sheet
from common.errors import UserError, command
from common.files import digest_of, put_in_place, read_json, read_jsonl, remove, write_json, write_jsonl, write_text
from common.locks import hold
from tasks.load import SPLITS, Task, load_task
from tasks.settings import TaskSettings

UNUSABLE = "?"  # an answer: the item cannot be answered
YES, NO = "yes", "no"  # answers where a kind has no classes or options
LETTERS = "ABCDEFG"
RESAMPLES = 2000  # of the items, for the interval of kappa


# ---------------------------------------------------------------- sample


def sample(folder: Path, out: Path, examples: int, part: str, seed: int) -> None:
    """Draw `examples` of a part of the set in `folder`, and write one sheet for each of two annotators, in orders of their own.

    Filled sheets are never overwritten: raises UserError where `out` holds another sample.
    """
    _, task = read_set(folder)
    drawn = random.Random(seed).sample(range(len(getattr(task, part))), min(examples, len(getattr(task, part))))
    items = {}
    for number, place in enumerate(sorted(drawn), start=1):
        example = getattr(task, part)[place]
        text, gold = asked(task, example)  # an id of our own: spreadsheets make dates and numbers of others
        items[f"item-{number:04d}"] = {"place": place, "id": example["id"], "gold": gold, "shown": text}
    key = {"set": str(folder), "part": part, "seed": seed, "kind": task.kind, "answers": answers_of(task), "items": items}
    with hold(out):
        if out.exists():
            if not (out / "key.json").exists() or read_json(out / "key.json") != key:
                raise UserError(
                    f"{out}: another sample is there, whose sheets people may have filled. Name another folder (--out)."
                )
            print(f"already complete: {out}")
            return
        beside = out.with_name(f".{out.name}.part")
        remove(beside)
        for number in (1, 2):
            order = random.Random(f"{seed} {number}").sample([*items], len(items))
            write_sheet(
                beside / f"annotator-{number}.csv", [{"item": i, **items[i]["shown"], "answer": "", "note": ""} for i in order]
            )
        write_json(beside / "key.json", key)
        put_in_place(beside, out)
    print(f"{len(items):,} of {len(getattr(task, part)):,} {part} examples: {out}/annotator-1.csv and annotator-2.csv")
    print(
        f'column "answer": {", ".join(key["answers"])} (? = cannot be answered). key.json has the answers of the set: keep it.'
    )


def read_set(folder: Path) -> tuple[dict[str, Any], Task]:
    """The report of a built set and the set as fine-tuning reads it. Raises UserError for another folder."""
    if not (folder / "report.json").exists():
        raise UserError(f"{folder}: no set that builders.build made (report.json is missing). Name its folder.")
    report = read_json(folder / "report.json")
    files = {
        split: str(folder / "data" / Path(name).name) for name in report["files"] for split in SPLITS if name.startswith(split)
    }
    return report, load_task(TaskSettings(kind=report["kind"], language=report["language"], **files, **report["task"]))


def answers_of(task: Task) -> list[str]:
    """What an annotator may write, beside ?."""
    if task.kind == "choice":
        parts = [example for split in SPLITS for example in getattr(task, split)]
        return list(LETTERS[: max(len(example["options"]) for example in parts)])
    return list(task.labels) if task.kind in ("classification", "pair") else [YES, NO]


def asked(task: Task, example: dict[str, Any]) -> tuple[dict[str, str], str]:
    """(the columns that an annotator sees of an example, the answer of the set)."""
    if task.kind == "choice":
        options = {letter: "" for letter in answers_of(task)}
        options |= dict(zip(LETTERS, example["options"], strict=False))
        return {"question": example["question"], **options}, LETTERS[example["label"]]
    if task.kind in ("classification", "pair"):
        return {name: example[name] for name in ("text", "text_b") if name in example}, str(example["label"])
    if task.kind == "qa":
        answers = " / ".join(answer["text"] for answer in example["answers"]) or "(no answer)"
        return {"context": example["context"], "question": example["question"], "is it this?": answers}, YES
    return {"is it this?": shown(example)}, YES


# ---------------------------------------------------------------- agree


def agree(folder: Path) -> dict[str, Any]:
    """Agreement of the sheets annotator-*.csv in `folder`; writes agreement.json and .md, adjudicate.csv and aside.jsonl."""
    key = _key(folder)
    sheets = sorted(folder.glob("annotator-*.csv"))
    if len(sheets) < 2:
        raise UserError(f"{folder}: {len(sheets)} sheets annotator-*.csv, at least 2 are needed. Put the filled sheets there.")
    lost: list[dict[str, Any]] = []
    given = {path.stem: read_answers(path, key, lost) for path in sheets}
    found = agreement(given, key)
    found["aside"] = dict(sorted(Counter(one["reason"] for one in lost).items()))
    open_items = to_adjudicate(given, key)
    done, notes, names = {}, {}, [*given]
    if (folder / "adjudicate.csv").exists():  # what is filled already stays
        done = read_answers(folder / "adjudicate.csv", key, [])
        notes = {row["item"]: row.get("note", "") for _, row in read_sheet(folder / "adjudicate.csv", ("item",))[0]}
    rows = [
        {"item": item, **key["items"][item]["shown"], "why": why}
        | {
            f"answer {place}": answer
            for place, answer in enumerate(sorted(given[name].get(item, "") for name in names), start=1)
        }
        | {"answer": done.get(item, ""), "note": notes.get(item, "")}
        for item, why in open_items.items()
    ]
    write_jsonl(folder / "aside.jsonl", lost)
    write_json(folder / "agreement.json", found)
    write_text(folder / "agreement.md", "\n".join(_lines(found)) + "\n")
    if rows:
        write_sheet(folder / "adjudicate.csv", rows)
    else:
        remove(folder / "adjudicate.csv")
    print("\n".join(_lines(found)))
    print(f"{len(rows):,} items to adjudicate" + (f': fill "answer" in {folder}/adjudicate.csv' if rows else ""))
    return found


def _key(folder: Path) -> dict[str, Any]:
    if not (folder / "key.json").exists():
        raise UserError(f"{folder}: key.json is missing, which builders.annotate sample wrote. Restore it.")
    return read_json(folder / "key.json")


def read_answers(path: Path, key: dict[str, Any], lost: list[dict[str, Any]]) -> dict[str, str]:
    """{item: answer} of a sheet; rows that give none go to `lost` with their line and reason."""
    allowed = {answer.casefold(): answer for answer in [*key["answers"], UNUSABLE]}
    rows, unread = read_sheet(path, ("item", "answer"))
    lost += unread
    given: dict[str, str] = {}
    twice = set()
    for line, row in rows:
        item, answer = row["item"].strip(), row["answer"].strip()
        reason = None
        if item not in key["items"]:
            reason = "an item that is not in the sample"
        elif not answer:
            reason = "no answer"
        elif answer.casefold() not in allowed:
            reason = "an answer that is none of those allowed"
        elif given.get(item, allowed[answer.casefold()]) != allowed[answer.casefold()]:
            reason = "an item answered twice, in two ways (neither is used)"
            twice.add(item)
        if reason:
            lost.append({"file": path.name, "line": line, "item": item, "reason": reason, "answer": answer})
        else:
            given[item] = allowed[answer.casefold()]
    seen = {row["item"].strip() for _, row in rows}
    lost += [
        {"file": path.name, "line": None, "item": item, "reason": "an item that is missing in the sheet"}
        for item in key["items"]
        if item not in seen
    ]
    return {item: answer for item, answer in given.items() if item not in twice}


def agreement(given: dict[str, dict[str, str]], key: dict[str, Any]) -> dict[str, Any]:
    """Agreement of annotators {name: {item: answer}} in numbers.

    "pairs": for each two annotators the items that both answered, the share on which they agree, and Cohen's kappa (1960)
    with a 95 % interval over resampled items. "alpha": Krippendorff's (2011), nominal, over all annotators, also where one
    left an item out. "set": each annotator against the answers of the set. "answers": of each answer, how often the other
    gave it too (specific agreement). A coefficient is None where it is not defined, since all answers are the same.
    """
    gold = {item: one["gold"] for item, one in key["items"].items()}
    names = [*given]
    pairs, together, same = {}, Counter(), Counter()
    confused: Counter[str] = Counter()
    for one, other in combinations(names, 2):
        both = [item for item in gold if item in given[one] and item in given[other]]
        left, right = ([given[name][item] for item in both] for name in (one, other))
        pairs[f"{one} / {other}"] = _compared(left, right)
        for a, b in zip(left, right, strict=True):
            together.update([a, b])
            same[a] += 2 * (a == b)
            if a != b:
                confused[" / ".join(sorted((a, b)))] += 1
    against = {name: _compared([*given[name].values()], [gold[item] for item in given[name]]) for name in names}
    alpha, missing = krippendorff_alpha([[given[name].get(item) for item in gold] for name in names])
    return {
        "items": len(gold),
        "answered": {name: len(given[name]) for name in names},
        "pairs": pairs,
        "alpha": alpha,
        "alpha_missing": missing,
        "set": against,
        "answers": {answer: round(same[answer] / together[answer], 4) for answer in sorted(together)},
        "confused": dict(confused.most_common(10)),
    }


def _compared(left: list[str], right: list[str]) -> dict[str, Any]:
    """Share of agreement and Cohen's kappa of two lists of answers, with its interval."""
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    if not left:
        return {"items": 0, "agree": None, "kappa": None, "low": None, "high": None}
    share = float(np.mean([a == b for a, b in zip(left, right, strict=True)]))
    names = sorted({*left, *right})
    if len(names) < 2:
        return {"items": len(left), "agree": round(share, 4), "kappa": None, "low": None, "high": None}
    counts = confusion_matrix(left, right, labels=names)
    drawn = np.random.default_rng(0).multinomial(len(left), counts.ravel() / counts.sum(), RESAMPLES)
    drawn = drawn.reshape(-1, len(names), len(names)) / len(left)
    observed = np.einsum("nii->n", drawn)
    expected = (drawn.sum(1) * drawn.sum(2)).sum(1)
    known = expected < 1  # a resample in which all answers are the same has no kappa
    low, high = np.percentile((observed[known] - expected[known]) / (1 - expected[known]), [2.5, 97.5])
    kappa = float(cohen_kappa_score(left, right))
    return {
        "items": len(left), "agree": round(share, 4), "kappa": round(kappa, 4),
        "low": round(float(low), 4), "high": round(float(high), 4),
    }  # fmt: skip


def krippendorff_alpha(answers: list[list[str | None]]) -> tuple[float | None, str]:
    """(Krippendorff's nominal alpha of answers [annotators][items], why there is none); None is an item left out."""
    try:
        import krippendorff
    except ImportError:
        return None, "the package krippendorff is not installed (pip install -r requirements-extra.txt)"
    values = sorted({answer for row in answers for answer in row if answer is not None})
    if len(values) < 2:
        return None, "all answers are the same"
    number = {value: float(place) for place, value in enumerate(values)}
    table_of = np.array([[np.nan if answer is None else number[answer] for answer in row] for row in answers])
    if not (np.isfinite(table_of).sum(0) > 1).any():
        return None, "no item has two answers"
    alpha = float(krippendorff.alpha(reliability_data=table_of, level_of_measurement="nominal"))
    return (None, "all answers are the same") if np.isnan(alpha) else (round(alpha, 4), "")


def to_adjudicate(given: dict[str, dict[str, str]], key: dict[str, Any]) -> dict[str, str]:
    """{item: why a third person must decide it}, in the order of the sample."""
    wanted = {}
    for item, one in key["items"].items():
        answers = [given[name][item] for name in given if item in given[name]]
        if len(set(answers)) > 1:
            wanted[item] = "the annotators differ"
        elif len(answers) < 2:
            wanted[item] = "only one answer" if answers else "no answer"
        elif answers[0] != one["gold"]:
            wanted[item] = "the annotators agree against the set"
    return wanted


def _lines(found: dict[str, Any]) -> list[str]:
    """The agreement as Markdown."""

    def cells(one: dict[str, Any]) -> tuple[str, ...]:
        share = "" if one["agree"] is None else f"{100 * one['agree']:.1f} %"
        kappa = "not defined" if one["kappa"] is None else f"{one['kappa']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
        return f"{one['items']:,}", share, kappa

    rows = [("who", "items", "agree", "Cohen's kappa (95 %)")]
    rows += [(name, *cells(one)) for name, one in found["pairs"].items()]
    rows += [(f"{name} / the set", *cells(one)) for name, one in found["set"].items()]
    alpha = f"{found['alpha']:.3f}" if found["alpha"] is not None else f"none: {found['alpha_missing']}"
    lines = [*table(rows), "", f"Krippendorff's alpha (nominal): {alpha}", ""]
    lines += table(
        [("answer", "given by the other too"), *((a, f"{100 * share:.1f} %") for a, share in found["answers"].items())]
    )
    if found["confused"]:
        lines += ["", *table([("answers that differ", "items"), *((name, str(n)) for name, n in found["confused"].items())])]
    if found["aside"]:
        lines += ["", *table([("rows not used", "number"), *((name, str(n)) for name, n in found["aside"].items())])]
    return lines


# ---------------------------------------------------------------- adjudicate


def adjudicate(folder: Path, out: Path) -> dict[str, Any]:
    """Write the set anew into `out` with the answers of people, and return its report.

    Items on which the annotators agree with the set stay, those of adjudicate.csv get its answer, ? and no are set aside.
    Raises UserError while an item has no answer, and if the set was built anew since the sample was drawn.
    """
    key = _key(folder)
    report, task = read_set(Path(key["set"]))
    sheets = [*sorted(folder.glob("annotator-*.csv")), *folder.glob("adjudicate.csv")]
    lost: list[dict[str, Any]] = []
    given = {path.stem: read_answers(path, key, lost if path.stem != "adjudicate" else []) for path in sheets}
    decided = given.pop("adjudicate", {})
    found = agreement(given, key) | {"aside": dict(sorted(Counter(one["reason"] for one in lost).items()))}
    wanted = to_adjudicate(given, key)
    if still := [item for item in wanted if item not in decided]:
        raise UserError(
            f"{folder}: {len(still)} items have no answer yet ({', '.join(still[:5])} ...). Run builders.annotate agree, "
            'fill "answer" in adjudicate.csv (? if it cannot be answered), and try again.'
        )
    rows = _rows(Path(key["set"]), report, task)
    says_whether = task.kind not in ("choice", "classification", "pair")
    changed, removed, put_aside = 0, 0, [row for _, row in read_jsonl(Path(key["set"]) / "aside.jsonl")]
    for item, one in key["items"].items():
        example, row = getattr(task, key["part"])[one["place"]], rows[key["part"]][one["place"]]
        if example["id"] != one["id"] or asked(task, example) != (one["shown"], one["gold"]):
            raise UserError(f"{key['set']}: {item} is another example now, so the set was built anew. Draw a new sample.")
        answer = decided.get(item, one["gold"]) if item in wanted else one["gold"]
        row["checked"] = True
        if answer == UNUSABLE or (says_whether and answer == NO):
            removed += 1
            reason = "people found no answer" if answer == UNUSABLE else "people found its answer wrong"
            put_aside.append(aside(f"{key['part']} part", one["place"] + 1, reason, {"shown": shown(example)}, one["id"]))
            rows[key["part"]][one["place"]] = None
        elif answer != one["gold"]:
            changed += 1
            row["label"] = LETTERS.index(answer) if task.kind == "choice" else answer
    parts = {split: [row for row in rows[split] if row is not None] for split in SPLITS}
    built = Built(report["kind"], parts, put_aside, report["task"])
    return _written(folder, out, report, built, {**found, "changed": changed, "removed": removed})


def _rows(folder: Path, report: dict[str, Any], task: Task) -> dict[str, list[dict[str, Any] | None]]:
    """The rows of each part as its file has them, in order."""
    if report["kind"] == "tagging":
        return {split: [dict(example) for example in getattr(task, split)] for split in SPLITS}
    return {split: [row for _, row in read_jsonl(folder / "data" / f"{split}.jsonl")] for split in SPLITS}


def _written(folder: Path, out: Path, report: dict[str, Any], built: Built, found: dict[str, Any]) -> dict[str, Any]:
    made = report["made"]
    built.by, built.beware, built.facts = made["by"], made["beware"], {**report["facts"], "annotation": found}
    built.counts = {**report["counts"], "items checked by people": found["items"]}
    built.counts |= {"answers that they changed": found["changed"], "items that they set aside": found["removed"]}
    sections = [
        (title, [tuple(line) if isinstance(line, list) else line for line in lines]) for title, lines in made["sections"]
    ]
    built.sections = [*sections, ("Annotation", _lines(found))]
    sheets = inputs_of(sorted(folder.glob("*.csv")))
    settings = {**made["settings"], "name": report["name"], "out": str(out)}
    known = {"digest": digest_of([report["digest"], sheets]), "inputs": [*report["inputs"], *sheets]}
    with hold(out):
        beside = out.with_name(f".{out.name}.part")
        remove(beside)
        new = write_set(beside, built, settings, known)
        put_in_place(beside, out)
    print(f"{out}: {found['items']:,} items checked, {found['changed']:,} answers changed, {found['removed']:,} set aside")
    return new


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m builders.annotate", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("sample", help="draw examples of a set and write the sheets")
    first.add_argument("set", help="folder of a built set (runs/NAME/set)")
    first.add_argument("--out", required=True, help="folder of the sheets")
    first.add_argument("--examples", type=int, default=200, help="how many (default 200)")
    first.add_argument("--part", choices=SPLITS, default="test", help="of which part (default test)")
    first.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    second = commands.add_parser("agree", help="agreement of the filled sheets, and the list to adjudicate")
    second.add_argument("folder", help="folder of the sheets")
    third = commands.add_parser("adjudicate", help="write the set anew with what people decided")
    third.add_argument("folder", help="folder of the sheets")
    third.add_argument("--out", required=True, help="folder of the checked set")
    options = parser.parse_args(arguments)
    if options.command == "sample":
        if options.examples < 1:
            raise UserError(f"--examples {options.examples}: expected at least 1.")
        sample(Path(options.set), Path(options.out), options.examples, options.part, options.seed)
    elif options.command == "agree":
        agree(Path(options.folder))
    else:
        adjudicate(Path(options.folder), Path(options.out))


if __name__ == "__main__":
    sys.exit(main())
