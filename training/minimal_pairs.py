"""Which of two sentences a pre-trained model prefers: minimal pairs, scored by word-level pseudo-log-likelihood.

    python -m training.minimal_pairs checkpoint=runs/mine/pretrain                      the suite of the checkpoint's language
    python -m training.minimal_pairs checkpoint=runs/mine/pretrain pairs=FILE.csv       any file of pairs

A pair is a correct sentence and one that differs in one place and is wrong (BLiMP, Warstadt et al. 2020, arXiv 1912.00582);
a model is right if the correct one scores higher. The score of a sentence is PLL-word-l2r (Kauf & Ivanova 2023, arXiv
2305.10588, §3): the sum over tokens of the log-probability of each, with that token and the later tokens of its word masked.
Words are those of the tokenizer. Equal scores count one half, so that a model which knows nothing gets 50 %.
Written to runs/NAME: report.html, report.json, pairs.jsonl with both scores of every pair. Settings: conf/minimal_pairs.yaml.
"""

import glob
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from common.code import code_files
from common.errors import UserError
from common.files import ROOT, digest_of, read_json, sha256_file, write_json, write_jsonl, write_text
from common.html import SORT, fold, origin_of, page, table
from common.launch import git_state, launch
from common.progress import progress
from common.settings import plain
from common.task_files import read_clean
from data.layout import Layout, move
from evaluation.statistics import score_interval
from language.base import load_language
from model.mlm import MaskedLM
from model.store import language_of, load_masked_lm, read_config, resolve_checkpoint
from tokenization.loading import load_tokenizer
from tokenization.normaliser import SPACE_MARK
from tokenization.tokenizer import Tokenizer
from training.distributed import start
from training.identity import weights_of
from training.settings import MinimalPairs, settings_of

SUITES = ROOT / "language" / "pairs"  # NAME.csv is the suite of the language NAME
# Names of the columns in this project's files, TurBLiMP's (good_sentence) and BLiMP's (sentence_good, UID).
GOOD = ("good", "good_sentence", "sentence_good")
BAD = ("bad", "bad_sentence", "sentence_bad")
PHENOMENON = ("phenomenon", "uid", "linguistics_term")
WORST = 5  # pairs of a phenomenon that the page shows


def pair_files(settings: MinimalPairs) -> list[Path]:
    """The files that `pairs` names, or the suite of the language. UserError if there is none."""
    if settings.pairs is not None:
        return files_named(settings.pairs, "pairs")
    if settings.language:
        language = load_language(settings.language)
    else:
        folder = resolve_checkpoint(settings.checkpoint)
        language = language_of(read_config(folder)[1], load_tokenizer(folder))
    if language is None:
        raise UserError(f"{settings.checkpoint} records no language. Give pairs=FILE.csv, or language=NAME.")
    return [suite_of(language.name, "pairs")]


def files_named(wanted: str | Sequence[str], key: str) -> list[Path]:
    """The files of a path, a glob or a list of them, which the setting `key` holds. UserError if there is none."""
    patterns = [wanted] if isinstance(wanted, str) else wanted
    files = sorted({Path(path) for pattern in patterns for path in glob.glob(str(Path(pattern).expanduser()))})
    if not files:
        raise UserError(f"{key}={wanted}: no such file. Give a .csv or .jsonl with {GOOD[1]} and {BAD[1]}.")
    return files


def suite_of(language: str | None, key: str) -> Path:
    """The file of a language's suite. UserError, which names `key`, if it has none."""
    path = SUITES / f"{language}.csv"
    if language is None or not path.exists():
        known = ", ".join(sorted(file.stem for file in SUITES.glob("*.csv")))
        raise UserError(f"language={language}: has no suite of pairs (there are: {known}). Give {key}=FILE.csv.")
    return path


def read_pairs(files: Sequence[Path]) -> tuple[list[dict[str, str]], list[str]]:
    """The pairs {good, bad, phenomenon, group} of these files, and a line for each that is none because both are equal.

    A file without a column for the phenomenon gives its own name. Raises UserError, with file and line, for a record without
    a sentence, and for files without a pair.
    """
    pairs, aside = [], []
    for path in files:
        for line, row in read_clean(path):
            folded = {str(key).lower().strip(): str(value or "").strip() for key, value in row.items()}
            good, bad, named = (
                next((folded[name] for name in names if folded.get(name)), "") for names in (GOOD, BAD, PHENOMENON)
            )
            if not good or not bad:
                raise UserError(
                    f"{path}, line {line}: expected a sentence under {GOOD[1]} and one under {BAD[1]}; the columns are "
                    f"{', '.join(map(str, row))}. Correct the file."
                )
            if good == bad:
                aside.append(f"{path}, line {line}: both sentences are equal")
                continue
            name = ", ".join(filter(None, (named or path.name.split(".")[0], folded.get("subtype"))))
            pairs.append({"good": good, "bad": bad, "phenomenon": name, "group": folded.get("group") or f"{path}:{line}"})
    if not pairs:
        raise UserError(f"{', '.join(map(str, files))}: no pairs in it. Give a file with two different sentences a line.")
    return pairs, aside


def words_of(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a text without special tokens [n], and the number of each token's word [n], as the tokenizer splits words.

    A sentencepiece model, and a tokenizer that reads a whole text as one word (Gemma's, which mmBERT uses), begin a word at
    each token with a space mark.
    """
    if tokenizer.engine is not None and len(set(tokenizer.engine.encode("a a", add_special_tokens=False).word_ids)) > 1:
        read = tokenizer.engine.encode(text, add_special_tokens=False)
        return np.array(read.ids, dtype=np.int64), np.array(read.word_ids)
    ids = tokenizer.encode_batch([text])[0].astype(np.int64)
    return ids, np.cumsum([tokenizer.tokens[token].startswith(SPACE_MARK) for token in ids])


def masked_rows(tokenizer: Tokenizer, text: str) -> Iterator[tuple[np.ndarray, int, int]]:
    """(ids with [CLS], [SEP] and masks; position of the token asked for; that token) for each token of a text."""
    ids, words = words_of(tokenizer, text)
    framed = np.concatenate([[tokenizer.cls_id], ids, [tokenizer.sep_id]])
    for place, token in enumerate(ids):
        row = framed.copy()
        hidden = place + np.flatnonzero(words[place:] == words[place])
        row[1 + hidden] = tokenizer.mask_id
        yield row, 1 + place, int(token)


@torch.no_grad()
def log_likelihoods(
    model: MaskedLM, tokenizer: Tokenizer, texts: Sequence[str], batch_tokens: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """PLL-word-l2r in nats [n] and number of tokens [n] of each text. Raises UserError for one that the model cannot read."""
    device, longest = model.head.bias.device, model.encoder.config.max_length
    scores, sizes = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    rows: list[tuple[np.ndarray, int, int]] = []
    owners: list[int] = []

    def finish() -> None:
        lengths = [len(row) for row, _, _ in rows]
        begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        flat, tokens = np.concatenate([row for row, _, _ in rows]), np.array([token for _, _, token in rows])
        layout, asked = Layout.of(lengths).asking(begins + [place for _, place, _ in rows], device)
        flat, tokens = (move(torch.from_numpy(values), device) for values in (flat, tokens))
        logits = model.logits(flat, layout, asked).float()
        found = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        np.add.at(scores, owners, found.double().cpu().numpy())
        rows.clear()
        owners.clear()

    filled = 0
    for number, text in enumerate(progress(texts, desc="pairs", unit=" sentences")):
        for row in masked_rows(tokenizer, text):
            if len(row[0]) > longest:
                raise UserError(f"{text[:80]!r} has {len(row[0])} tokens, the model reads {longest} at most. Shorten it.")
            if rows and filled + len(row[0]) > batch_tokens:
                finish()
                filled = 0
            rows.append(row)
            owners.append(number)
            filled += len(row[0])
            sizes[number] += 1
    if rows:
        finish()
    return scores, sizes


def judged(pairs: Sequence[dict[str, str]], scores: np.ndarray, sizes: np.ndarray) -> list[dict[str, Any]]:
    """Each pair with both scores and sizes, whether it is right (1, 0, or 0.5 for equal scores), and whether it is matched.

    `scores`, `sizes` [2 n]: those of the good sentences, then those of the bad ones. Matched: both have as many words and
    as many tokens, so that neither length nor a rare splitting tells them apart.
    """
    n, found = len(pairs), []
    for i, pair in enumerate(pairs):
        margin = float(scores[i] - scores[n + i])
        same_words = len(pair["good"].split()) == len(pair["bad"].split())
        found.append(
            pair
            | {
                "good_score": float(scores[i]),
                "bad_score": float(scores[n + i]),
                "good_tokens": int(sizes[i]),
                "bad_tokens": int(sizes[n + i]),
                "right": 0.5 + 0.5 * float(np.sign(margin)),
                "matched": bool(same_words and sizes[i] == sizes[n + i]),
            }
        )
    return found


def accuracy(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{accuracy, low, high, pairs, groups}: the 95 % interval resamples groups of pairs (one sentence with other words).

    With several phenomena these are the groups: an untrained model prefers one of two suffixes in all pairs of a phenomenon,
    so it may be far from 50 % by luck, and an interval over sentences would call that knowledge.
    """
    if not found:
        return {"accuracy": None, "low": None, "high": None, "pairs": 0, "groups": 0}
    key = "phenomenon" if len({pair["phenomenon"] for pair in found}) > 1 else "group"
    groups = [pair[key] for pair in found]
    many = len(set(groups)) > 1
    estimate = score_interval([np.array([pair["right"] for pair in found])], groups=groups if many else None)
    names = {"accuracy": "value", "low": "low", "high": "high"}
    shown = {name: float(getattr(estimate, own)) for name, own in names.items()}
    if not many:  # one group says nothing about others
        shown |= {"low": None, "high": None}
    return {**shown, "pairs": len(found), "groups": len(set(groups))}


def summary_of(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy of all pairs and of each phenomenon, whole and matched, and the mean over phenomena."""
    names = list(dict.fromkeys(pair["phenomenon"] for pair in found))

    def both(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        return {"whole": accuracy(chosen), "matched": accuracy([pair for pair in chosen if pair["matched"]])}

    each = {name: both([pair for pair in found if pair["phenomenon"] == name]) for name in names}
    mean = float(np.mean([each[name]["whole"]["accuracy"] for name in names]))
    return {"all": both(list(found)), "mean_of_phenomena": mean, "phenomena": each}


def cells(name: str, part: dict[str, Any]) -> list[str]:
    """A row of the table: accuracy with its interval and the number of pairs, whole and matched."""
    row = [name]
    for one in (part["whole"], part["matched"]):
        shown = "–" if one["accuracy"] is None else f"{100 * one['accuracy']:.1f}"
        row += [shown, "–" if one["low"] is None else f"{100 * one['low']:.1f} to {100 * one['high']:.1f}", str(one["pairs"])]
    return row


HEADER = ["phenomenon", "right, %", "95 %", "pairs", "right, matched, %", "95 %", "pairs"]


def write_page(out: Path, report: dict[str, Any], found: Sequence[dict[str, Any]]) -> None:
    """report.html: the table, and the pairs of each phenomenon on which the model is most surely wrong."""
    rows = [HEADER, *(cells(name, part) for name, part in report["phenomena"].items()), cells("all pairs", report["all"])]
    worst = ""
    for name in report["phenomena"]:
        wrong = [pair for pair in found if pair["phenomenon"] == name and pair["right"] < 1]
        wrong = sorted(wrong, key=lambda pair: pair["good_score"] - pair["bad_score"])[:WORST]
        listed = [["correct", "wrong", "difference, nats"]]
        listed += [[pair["good"], pair["bad"], f"{pair['good_score'] - pair['bad_score']:.2f}"] for pair in wrong]
        worst += fold(name, table(listed, text=(0, 1))) if wrong else ""
    lead = (
        f"<p><b>{escape(report['model'])}</b> prefers the correct sentence in {100 * report['all']['whole']['accuracy']:.1f} % "
        f"of {len(found)} pairs; the mean over phenomena is {100 * report['mean_of_phenomena']:.1f} %, chance 50 %. Matched "
        "pairs are those whose two sentences have as many words and as many tokens.</p>"
    )
    aside = "".join(f"<p>{escape(line)}</p>" for line in report["set_aside"])
    state = git_state()
    sections = [
        ("table", "Accuracy", table(rows, "sortable", last="total")),
        ("worst", "Most surely wrong", worst),
        ("aside", "Set aside", aside),
    ]
    origin = origin_of(state["commit"], state["changed"])
    write_text(out / "report.html", page("Minimal pairs", lead, [part for part in sections if part[2]], "", SORT, origin))


def run(config: DictConfig) -> int:
    """Score the pairs and write the report; returns the exit code. A complete report of the same input is kept."""
    settings = settings_of(config, MinimalPairs)
    out = Path(settings.run_dir)
    files = pair_files(settings)
    pairs, aside = read_pairs(files)
    made_of = [code_files("training.minimal_pairs", rooms=("model", "data", "tokenization")), weights_of(settings.checkpoint)]
    digest = digest_of([*made_of, settings.batch_tokens, [[str(path), sha256_file(path)] for path in files]])
    if (out / "report.json").exists() and read_json(out / "report.json").get("digest") == digest:
        print(f"minimal pairs: already complete, skipped: {out}")
        return 0
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = start(settings.device).device
    model, tokenizer = load_masked_lm(settings.checkpoint)
    texts = [pair["good"] for pair in pairs] + [pair["bad"] for pair in pairs]
    found = judged(pairs, *log_likelihoods(model.to(device), tokenizer, texts, settings.batch_tokens))
    named = {"model": str(settings.checkpoint), "files": [str(path) for path in files], "set_aside": aside}
    report = named | summary_of(found)
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "pairs.jsonl", found)
    write_page(out, report, found)
    write_json(out / "report.json", report | {"settings": plain(settings), "digest": digest})
    for row in [HEADER, *(cells(name, part) for name, part in report["phenomena"].items()), cells("all pairs", report["all"])]:
        print(f"{row[0]:<32}" + "".join(f"{cell:>18}" for cell in row[1:]))
    for line in aside:
        print(f"set aside: {line}")
    print(f"{out / 'report.html'}")
    return 0


if __name__ == "__main__":
    launch(run, "minimal_pairs", MinimalPairs)
