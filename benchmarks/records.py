"""The record book: who learns most from the same text within the same counted FLOPs.

    python -m benchmarks.records                                    print the book, check its figures, draw the curve
    python -m benchmarks.records freeze WORKDIR                     write contest.json from a prepared folder (once)
    python -m benchmarks.records run NAME WORDS ... --data WORKDIR --changed "what is new"    three seeds of train.py
    python -m benchmarks.records peer NAME --data WORKDIR           transformers' script as an entry
    python -m benchmarks.records add NAME RUN RUN RUN --data WORKDIR --changed "..."          runs that were made before

WORKDIR is a folder that prepare.py made (corpus, tokenizer, shards). The rules are in benchmarks/contest.py. Each entry is a
folder of benchmarks/records/: record.json (figures, curves, digests, verdict) and config.yaml (of the first seed). A run that
does not take the record stays in the book as a negative. `run` resumes an interrupted run.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import (
    BOOK,
    DIVISIONS,
    Contest,
    as_json,
    bits_of,
    compare_with_holder,
    entry_of,
    fixed_words,
    heldout_digests,
    read_book,
    read_contest,
    scores_of,
    suite_means,
    training_text_digest,
    within_budget,
    without_folders,
)
from benchmarks.measure import environment, in_child, machine, markdown
from benchmarks.tokenizer_bits import compare
from common.errors import UserError, command
from common.files import read_json, read_jsonl, write_text
from common.html import page
from common.launch import ROOT
from data.shards import open_shards
from tokenization.loading import load_tokenizer
from training.page import lines

SUITE = ["az_topic", "az_ner", "az_news"]
PEER = [
    "experiment=local",
    "model=bert_mini",
    "optimizer=adamw",
    "masking=paper",
    "bias_from_counts=false",
    "embeddings_from_text=false",
]
DRIVER = """import prepare, runpy, sys
prepare.prepare = lambda settings: None  # the folder is prepared, by settings that only its owner knows
sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def freeze(workdir: Path, suite: list[str], out: Path) -> None:
    """Write a contest from a prepared folder; an existing one with entries beside it is not touched."""
    if list(out.parent.glob("*/record.json")):
        raise UserError(f"{out}: the book has entries. A new contest needs an empty folder.")
    tokenizer = load_tokenizer(workdir / "tokenizer")
    open_shards(workdir / "shards", tokenizer)
    contest = Contest(
        tokenizer=tokenizer.identity,
        text=training_text_digest(workdir / "corpus"),
        heldout=heldout_digests(workdir / "corpus" / "heldout.jsonl.gz"),
        window=128,
        tracks={"short": 1.4e14, "long": 7e14},
        suite=suite,
        suite_epochs=5,
        heldout_tokens=60000,
        seeds=3,
        p=0.01,
        gain=0.01,
    )
    write_text(out, as_json(contest))
    print(f"{out}: {len(contest.heldout)} held-out documents, suite {', '.join(suite)}")


def start_runs(options: argparse.Namespace, contest: Contest) -> list[Path]:
    """Run train.py once for each seed; a finished run is skipped, an interrupted one resumes."""
    data, runs = Path(options.data).absolute(), []
    shared = [f"corpus_dir={data / 'corpus'}", f"shards_dir={data / 'shards'}", f"name={options.name}"]
    for seed in range(options.seeds or contest.seeds):
        run = Path(options.out).absolute() / options.name / options.track / f"seed-{seed}"
        words = [*shared, *options.words, *fixed_words(contest, options.track, data, seed), f"hydra.run.dir={run}"]
        command_line = [sys.executable, "-c", DRIVER, "train.py", *words]
        result = subprocess.run(command_line, cwd=ROOT, env=environment(options.threads), check=False)
        if result.returncode:
            raise UserError(
                f"{run}: train.py ended with {result.returncode}. The same command resumes from its last checkpoint."
            )
        runs.append(run)
    return runs


def peer_words(options: argparse.Namespace, data: Path, name: str) -> list[str]:
    """Overrides of train.py that describe the peer. Its corpus is built already, so corpus.path only needs some value."""
    shape = options.words if options.action == "peer" else options.peer_words
    return [*PEER, *shape, f"corpus.path={data}", f"workdir={data}", f"name={name}"]


def start_peer(options: argparse.Namespace, contest: Contest) -> list[Path]:
    """The peer, once for each seed; a finished run is kept, an interrupted one starts again."""
    data, runs = Path(options.data).absolute(), []
    for seed in range(options.seeds or contest.seeds):
        run = Path(options.out).absolute() / options.name / options.track / f"seed-{seed}"
        words = [*peer_words(options, data, options.name), *fixed_words(contest, options.track, data, seed)]
        if not (run / "summary.json").exists():
            in_child("benchmarks.record_peer", {"words": words, "run": str(run), "rate": options.rate}, options.threads)
        runs.append(run)
    return runs


def peer_minutes(options: argparse.Namespace, contest: Contest) -> float:
    """Minutes in which the peer's script uses the budget of the track on this machine, from a few timed steps."""
    data = Path(options.data).absolute()
    words = [*peer_words(options, data, "peer"), *fixed_words(contest, options.track, data, 0)]
    work = {"words": words, "run": str(Path(options.out).absolute() / "timed"), "rate": options.rate, "timed": True}
    return contest.tracks[options.track] / in_child("benchmarks.record_peer", work, options.threads)["flops_per_second"] / 60


def add(options: argparse.Namespace, contest: Contest, runs: list[Path], peer: float | None) -> dict[str, Any]:
    """Check the runs and write them into the book, with the verdict against the present record."""
    seeds = [entry_of(run, contest, options.track, options.division) for run in runs]
    if len({seed["seed"] for seed in seeds}) < len(seeds):
        raise UserError("two of the runs have the same seed.")
    if options.division == "tokenizer":
        if not options.against:
            raise UserError("--division tokenizer: name a checkpoint of the record with the frozen tokenizer (--against).")
        texts = [record["text"] for _, record in read_jsonl(Path(options.data) / "corpus" / "heldout.jsonl.gz")]
        for run, seed in zip(runs, seeds, strict=True):
            found = compare([options.against, str(run)], texts, contest.window - 2)["models"]
            seed["common_bits"] = found[str(run)]["bits_per_character"]
            seed["common_bits_of_frozen"] = found[options.against]["bits_per_character"]
    book = read_book(Path(options.book))
    record = {
        "name": options.name,
        "number": 1 + max((entry["number"] for entry in book), default=0),
        "track": options.track,
        "division": options.division,
        "changed": options.changed,
        "words": options.words,
        "machine": machine(options.threads),
        "peer_minutes": peer,
        "seeds": seeds,
    }
    record["record"], record["why"] = standing(record, holder_of(record, book), contest)
    folder = Path(options.book) / options.name
    write_text(folder / "config.yaml", without_folders((runs[0] / "config.yaml").read_text(encoding="utf-8")))
    write_text(folder / "record.json", without_folders(json.dumps(record, ensure_ascii=False, indent=2)) + "\n")
    print(f"{options.name}: {'a record' if record['record'] else 'no record'}: {record['why']}")
    return record


def holder_of(record: dict[str, Any], book: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last record of the same track and division before this entry."""
    same = [entry for entry in book if (entry["track"], entry["division"]) == (record["track"], record["division"])]
    return next((entry for entry in reversed(same) if entry["number"] < record["number"] and entry["record"]), None)


def standing(record: dict[str, Any], holder: dict[str, Any] | None, contest: Contest) -> tuple[bool, str]:
    """Whether an entry is a record, and why, in words."""
    verdict = compare_with_holder(record, holder, contest)
    if verdict is None or holder is None:
        return len(record["seeds"]) >= contest.seeds, "the first of its track and division"
    return verdict.record, f"against {holder['name']}: {verdict.why}"


def check_book(book: list[dict[str, Any]], contest: Contest) -> list[str]:
    """Contradictions between the book and its own figures: budgets, verdicts, suites."""
    wrong = []
    for entry in book:
        for seed in entry["seeds"]:
            if not within_budget(seed, contest.tracks[entry["track"]]):
                wrong.append(f"{entry['name']}, seed {seed['seed']}: {seed['flops']:.3g} FLOPs")
            if set(seed["tasks"]) != set(contest.suite):
                wrong.append(f"{entry['name']}, seed {seed['seed']}: not the suite")
            if seed["curve"] and abs(seed["curve"][-1]["bits"] - seed["bits"]) > 1e-4:
                wrong.append(f"{entry['name']}, seed {seed['seed']}: the curve does not end at {seed['bits']:.4f}")
        found = standing(entry, holder_of(entry, book), contest)
        if found != (entry["record"], entry["why"]):
            wrong.append(f"{entry['name']}: the book says {entry['why']!r}, its figures {found[1]!r}")
    return wrong


def table(book: list[dict[str, Any]], contest: Contest) -> str:
    """The book as a Markdown table, best first within a track and division."""
    head = ["track", "division", "entry", "bits/char", "suite", *contest.suite, "minutes", "peer's", "what changed", "verdict"]
    rows = []
    for entry in sorted(book, key=lambda e: (e["track"] != "short", DIVISIONS.index(e["division"]), np.mean(bits_of(e)))):
        minutes = np.mean([seed["minutes"] for seed in entry["seeds"]])
        peer = entry["peer_minutes"]
        rows.append([
            entry["track"], entry["division"], entry["name"], spread(bits_of(entry), 1, 3), spread(suite_means(entry, contest)),
            *(spread(scores_of(entry, name)) for name in contest.suite), f"{minutes:.1f}",
            f"{minutes / peer:.2f}x" if peer else "-", entry["changed"],
            ("RECORD: " if entry["record"] else "") + entry["why"],
        ])  # fmt: skip
    return markdown(head, rows)


def spread(values: list[float], scale: float = 100, digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    deviation = f" ±{scale * np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * np.mean(values):.{digits}f}{deviation}"


def curve_page(book: list[dict[str, Any]], contest: Contest) -> str:
    """One HTML page: bits against counted FLOPs for the first seed of each entry, a plot a track."""
    sections = []
    for track, budget in contest.tracks.items():
        drawn = {}
        for entry in (e for e in book if e["track"] == track):
            seed = entry["seeds"][0]
            each = seed["flops"] / seed["tokens"] / 1e14  # FLOPs are spread evenly over the tokens of a run
            drawn[entry["name"]] = [(each * point["tokens"], point["bits"]) for point in seed["curve"] if point["tokens"]]
        if drawn:
            plot = lines(drawn, "counted FLOPs, 1e14", "held-out bits per character")
            sections.append((track, f"{track} track, {budget:.2g} FLOPs", plot))
    return page("Record book", "<p>Held-out bits per character of the first seed of each entry.</p>", sections)


def show(folder: Path, contest: Contest) -> int:
    """Print and check the book, and write README.md and curve.html beside its entries; returns the exit code."""
    book = read_book(folder)
    text = table(book, contest)
    print(text)
    if not book:
        print("\nno entries yet")
        return 0
    write_text(folder / "README.md", f"# Record book\n\nWritten by `python -m benchmarks.records`.\n\n{text}\n")
    write_text(folder / "curve.html", curve_page(book, contest))
    wrong = check_book(book, contest)
    print(f"\n{len(book)} entries; {'all figures follow' if not wrong else 'NOT from their own figures:'}")
    print("\n".join(wrong))
    return 1 if wrong else 0


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("action", nargs="?", default="show", choices=("show", "freeze", "run", "peer", "add"))
    parser.add_argument("name", nargs="?", help="of the entry; for freeze, the prepared folder")
    parser.add_argument("words", nargs="*", help="run: words for train.py; peer: of its shape; add: run folders")
    parser.add_argument("--peer-words", nargs="+", default=[], help="run: words of the peer's shape, where it is not bert_mini")
    parser.add_argument("--data", help="prepared folder with corpus, tokenizer and shards")
    parser.add_argument("--track", default="short", help="short or long")
    parser.add_argument("--division", default="main", help=", ".join(DIVISIONS))
    parser.add_argument("--changed", default="", help="what is new, in one sentence")
    parser.add_argument("--against", help="division tokenizer: checkpoint of the record with the frozen tokenizer")
    parser.add_argument("--suite", nargs="+", default=SUITE, help="freeze: files of conf/task")
    parser.add_argument("--book", default=str(BOOK), help="folder of contest.json and the entries")
    parser.add_argument("--out", default="runs/records", help="folder of the runs")
    parser.add_argument("--rate", type=float, default=1e-3, help="peer: AdamW's rate")
    parser.add_argument("--seeds", type=int, help="fewer seeds than the contest has: a trial, never a record")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


@command
def main() -> int:
    """Command line; returns the exit code."""
    options = options_of()
    book = Path(options.book)
    if options.action == "freeze":
        if not options.name:
            raise UserError("freeze: name the prepared folder.")
        freeze(Path(options.name), options.suite, book / "contest.json")
        return 0
    contest = read_contest(book / "contest.json")
    if options.action == "show":
        return show(book, contest)
    if not (options.name and options.data):
        raise UserError(f"{options.action}: an entry needs a NAME and --data WORKDIR.")
    if (book / options.name).exists():
        raise UserError(f"{book / options.name}: this name is in the book already. Choose another.")
    if options.action == "add":
        runs, peer = [Path(word) for word in options.words], None
        options.words = read_json(runs[0] / "environment.json")["command"] if runs else []
    else:
        runs = start_runs(options, contest) if options.action == "run" else start_peer(options, contest)
        peer = peer_minutes(options, contest)
    if not runs:
        raise UserError("add: name the run folders, one a seed.")
    add(options, contest, runs, peer)
    return show(book, contest)


if __name__ == "__main__":
    sys.exit(main())
