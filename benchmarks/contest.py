"""The contest of the record book: what all runs of it have in common, how a run is checked, and when it is a record.

`benchmarks/records/contest.json` fixes the tokenizer and the training text by digest, the held-out documents by the digests
of their texts, the window, the budget of each track in counted FLOPs (training.flops), and the suite of tasks that
train.py scores on dev (evaluation.tasks); no run opens a test split.

A candidate takes the record of its track and division if, over the seeds of both,
- its held-out bits per character are lower by at least `gain`, a one-sided Welch test has p < `p`, and it is not
  significantly worse on any task of the suite (95 % Welch interval); or
- its mean over the suite is significantly better, and its bits are not significantly higher.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from scipy import stats

from common.errors import UserError
from common.files import read_json, read_jsonl
from common.launch import ROOT
from corpus.build import list_sources, read_documents
from data.shards import open_shards
from tokenization.loading import load_tokenizer

BOOK = ROOT / "benchmarks" / "records"
FOLDERS = re.compile(r"(?<![\w./:])/(?:[^/\s'\",:\]}]+/)+")  # of an absolute path, without its last name
DIVISIONS = ("main", "tokenizer", "text")  # all fixed; another vocabulary; other training text
NEAR = 0.01  # share by which a run's FLOPs may differ from its track's, in addition to one step: masked positions are drawn
CURVE = 40  # number of points stored of a curve


@dataclass
class Contest:
    """contest.json. Digests are SHA-256; `heldout` holds the digests of the held-out texts, sorted."""

    tokenizer: str
    text: str
    heldout: list[str]
    window: int
    tracks: dict[str, float]
    suite: list[str]
    suite_epochs: int
    heldout_tokens: int
    seeds: int
    p: float
    gain: float


def read_contest(path: Path = BOOK / "contest.json") -> Contest:
    """The contest; UserError if the file is missing or malformed."""
    try:
        return Contest(**read_json(path))
    except (TypeError, FileNotFoundError) as error:
        raise UserError(f"{path}: not a contest ({error}). `python -m benchmarks.records freeze WORKDIR` writes one.") from None


def text_digest(text: str) -> str:
    """SHA-256 of a document's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def heldout_digests(path: str | Path) -> list[str]:
    """Digests of the texts of a held-out file, sorted."""
    return sorted(text_digest(record["text"]) for _, record in read_jsonl(path))


def training_text_digest(corpus: str | Path) -> str:
    """One digest of all kept documents of a corpus, whatever their order and source."""
    each = sorted(text_digest(record["text"]) for name in list_sources(corpus) for record in read_documents(corpus, name))
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def fixed_words(contest: Contest, track: str, data: Path, seed: int) -> list[str]:
    """Overrides for every run of the contest, placed after its own because the last one counts."""
    return [
        f"tokenizer_dir={data / 'tokenizer'}",
        f"heldout_file={data / 'corpus' / 'heldout.jsonl.gz'}",
        f"seed={seed}",
        f"budget.flops={contest.tracks[track]:g}",
        f"model.max_length={contest.window}",
        f"phases=[{{max_length:{contest.window},until:1.0}}]",
        f"evaluation.max_tokens={contest.heldout_tokens}",
        f"evaluation.tasks=[{','.join(contest.suite)}]",
        f"evaluation.tasks_epochs={contest.suite_epochs}",
        "evaluation.tasks_every=null",
    ]


def entry_of(run: Path, contest: Contest, track: str, division: str) -> dict[str, Any]:
    """The book's entry for one finished run; UserError names everything that violates the contest."""
    if not (run / "summary.json").exists():
        raise UserError(f"{run}: no summary.json, so the run is not finished. Start it again; it resumes where it stopped.")
    settings: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    summary, place = read_json(run / "summary.json"), read_json(run / "environment.json")
    check_run(run, settings, summary, contest, track, division)
    lines = [line for _, line in read_jsonl(run / "metrics.jsonl")]
    looks = [line for line in lines if "heldout" in line]
    kept = sorted({int(number) for number in np.linspace(0, len(looks) - 1, min(CURVE, len(looks)))})
    curve = [
        {
            "tokens": line["tokens"],
            "minutes": round(line["minutes"], 3),
            "bits": round(line["heldout"]["bits_per_character"], 5),
        }
        for line in (looks[number] for number in kept)
    ]
    losses = [[line["step"], round(line["loss"], 4)] for line in lines if line.get("loss") is not None]
    losses = [losses[int(number)] for number in np.linspace(0, len(losses) - 1, min(CURVE, len(losses)))]
    return {
        "seed": summary["seed"],
        "bits": summary["heldout"]["bits_per_character"],
        "tasks": summary["tasks"],
        "flops": summary["flops"],
        "steps": summary["steps"],
        "tokens": summary["tokens"],
        "minutes": 60 * summary["hours"],
        "parameters": summary["parameters"],
        "block_weights_rms": summary["block_weights_rms"],
        "commit": place["commit"],
        "changed": place["changed"],
        "command": place["command"],
        "machine": {key: place[key] for key in ("cores", "threads", "gpu", "torch", "cpu") if key in place},
        "curve": curve,
        "losses": losses,
    }


def check_run(
    run: Path, settings: dict[str, Any], summary: dict[str, Any], contest: Contest, track: str, division: str
) -> None:
    """UserError for a run that violates the contest, naming every difference."""
    wrong = []
    if track not in contest.tracks:
        raise UserError(f"--track {track}: the tracks are {', '.join(contest.tracks)}.")
    if division not in DIVISIONS:
        raise UserError(f"--division {division}: the divisions are {', '.join(DIVISIONS)}.")
    if not within_budget(summary, contest.tracks[track]):
        wrong.append(f"it used {summary['flops']:.3g} FLOPs and the {track} track has {contest.tracks[track]:.3g}")
    if settings["start_from"]:
        wrong.append("it starts from a checkpoint (start_from), whose FLOPs are not counted")
    longest = max(phase["max_length"] for phase in settings["phases"])
    if longest != contest.window or settings["model"]["max_length"] != contest.window:
        wrong.append(f"its window is not {contest.window} tokens (phases, model.max_length)")
    evaluation = settings["evaluation"]
    if evaluation["max_tokens"] != contest.heldout_tokens:
        wrong.append(f"evaluation.max_tokens is not {contest.heldout_tokens}")
    if list(summary.get("tasks", {})) != contest.suite or evaluation["tasks_epochs"] != contest.suite_epochs:
        wrong.append(f"evaluation.tasks is not the suite [{', '.join(contest.suite)}] with {contest.suite_epochs} epochs")
    if heldout_digests(settings["heldout_file"]) != contest.heldout:
        wrong.append("its held-out documents are not the contest's")
    tokenizer = load_tokenizer(run / "checkpoint")
    if division != "tokenizer" and tokenizer.identity != contest.tokenizer:
        wrong.append("its tokenizer is not the contest's (--division tokenizer is for others)")
    open_shards(settings["shards_dir"], tokenizer)
    if division != "text" and training_text_digest(settings["corpus_dir"]) != contest.text:
        wrong.append("its training text is not the contest's (--division text is for others)")
    if division == "text" and (seen := leaked(settings["corpus_dir"], contest.heldout)):
        wrong.append(f"{seen} of the held-out documents are in its training text")
    if wrong:
        raise UserError(f"{run}: not a run of the contest: {'; '.join(wrong)}.")


def within_budget(run: dict[str, Any], budget: float) -> bool:
    """Whether the counted FLOPs of a run (its "flops" and "steps") are those of the track, within NEAR and one step."""
    return abs(run["flops"] - budget) <= NEAR * budget + run["flops"] / run["steps"]


def leaked(corpus: str | Path, heldout: Iterable[str]) -> int:
    """Number of held-out documents, by digest, among the kept documents of a corpus."""
    wanted = set(heldout)
    found = {text_digest(record["text"]) for name in list_sources(corpus) for record in read_documents(corpus, name)}
    return len(wanted & found)


@dataclass
class Difference:
    """A difference of two means by Welch's test: its value, 95 % interval, and p of the one-sided test that it is below 0."""

    value: float
    low: float
    high: float
    p_below: float


def welch(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """mean(ours) - mean(theirs) with unequal variances (Welch 1947); UserError with fewer than two values on a side."""
    if min(len(ours), len(theirs)) < 2:
        raise UserError("a comparison needs at least two seeds on each side.")
    value = float(np.mean(ours) - np.mean(theirs))
    if np.var(ours) + np.var(theirs) == 0:  # no spread at all: nothing is uncertain
        return Difference(value, value, value, float(value >= 0))
    found = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = found.confidence_interval(0.95)
    p = float(stats.ttest_ind(ours, theirs, equal_var=False, alternative="less").pvalue)
    return Difference(value, float(low), float(high), p)


@dataclass
class Verdict:
    """Result of comparing a candidate with the present record."""

    record: bool
    why: str
    bits: Difference
    suite: Difference
    behind: list[str]  # tasks of the suite with significantly lower scores


def compare_with_holder(candidate: dict[str, Any], holder: dict[str, Any] | None, contest: Contest) -> Verdict | None:
    """Whether `candidate` takes the record from `holder` (both as in record.json); None if there is no record yet."""
    if holder is None:
        return None
    bits = welch(bits_of(candidate), bits_of(holder))
    tasks = {name: welch(scores_of(candidate, name), scores_of(holder, name)) for name in contest.suite}
    behind = [name for name, difference in tasks.items() if difference.high < 0]
    suite = welch(suite_means(candidate, contest), suite_means(holder, contest))
    if len(candidate["seeds"]) < contest.seeds or len(holder["seeds"]) < contest.seeds:
        return Verdict(False, f"fewer than {contest.seeds} seeds", bits, suite, behind)
    if bits.value <= -contest.gain and bits.p_below < contest.p:
        if behind:
            return Verdict(False, f"fewer bits, but behind for certain on {', '.join(behind)}", bits, suite, behind)
        return Verdict(True, f"{-bits.value:.3f} bits fewer (p = {bits.p_below:.2g}), behind on no task", bits, suite, behind)
    if suite.low > 0 and bits.low <= 0:
        return Verdict(True, f"suite +{100 * suite.value:.1f} points for certain at equal bits", bits, suite, behind)
    why = f"{bits.value:+.3f} bits (p = {bits.p_below:.2g}), suite {100 * suite.value:+.1f} points"
    return Verdict(False, why, bits, suite, behind)


def bits_of(record: dict[str, Any]) -> list[float]:
    """Held-out bits per character of each seed; in division tokenizer, those on common units of text."""
    return [seed.get("common_bits", seed["bits"]) for seed in record["seeds"]]


def scores_of(record: dict[str, Any], task: str) -> list[float]:
    """Dev score of each seed; a fine-tuning that diverged counts as 0."""
    return [seed["tasks"][task] or 0.0 for seed in record["seeds"]]


def suite_means(record: dict[str, Any], contest: Contest) -> list[float]:
    """Mean over the suite for each seed."""
    return [float(np.mean([seed["tasks"][name] or 0.0 for name in contest.suite])) for seed in record["seeds"]]


def read_book(book: Path = BOOK) -> list[dict[str, Any]]:
    """All records and negatives, in the order in which they were added; UserError for a damaged one."""
    found = []
    for path in sorted(book.glob("*/record.json")):
        record = read_json(path)
        missing = [key for key in ("name", "number", "track", "division", "changed", "seeds") if key not in record]
        if missing:
            raise UserError(f"{path}: no {missing[0]!r}. Add the run again, or restore the file from git.")
        found.append(record)
    return sorted(found, key=lambda record: record["number"])


def without_folders(text: str) -> str:
    """A text in which ".../" stands for the folders of every absolute path: they are of one machine and say who owns it."""
    return FOLDERS.sub(".../", text)


def as_json(contest: Contest) -> str:
    """contest.json's text, with one held-out digest a line."""
    return json.dumps(vars(contest), indent=1) + "\n"
