"""Train an encoder to give sentence vectors: neighbouring sentences near each other, all others of the batch away.

    python -m training.sentences checkpoint=runs/mine/pretrain documents=FOLDER/*.jsonl.gz
    python -m model.embeddings export runs/sentences/checkpoint OUT      a folder for SentenceTransformer(OUT)

Mean pooling; InfoNCE (arXiv 1807.03748) in both directions over cosines divided by a temperature (SimCSE, 2104.08821: 0.05);
every other pair of the batch is a negative, unless it says the same. Pairs are two sentences that follow one another in a
document. A fifth of the documents, the next-sentence task's test documents, is held out: how often the true next sentence is
the nearest of all, and, where `test` names scored pairs, Spearman's correlation of cosine and score, before and after. The
loop is flat: read it from `run` down. Settings: conf/sentences.yaml.
"""

import csv
import glob
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from common.errors import UserError
from common.files import open_text, read_jsonl
from common.launch import launch, resolved
from data.next_sentence import MAX_WORDS, MIN_WORDS, read_documents, split_sentences
from data.splits import split_of
from model.embeddings import SENTENCES, embed, mean_vectors, rows_of
from model.folder import write_checkpoint
from model.store import load_encoder
from training.distributed import start
from training.optimizers import build_optimizers, set_learning_rate
from training.precision import choose_dtype
from training.schedules import learning_rate_factor
from training.starting import origin
from training.tracking import Tracker, is_done, peak_memory

TEST = 2  # number of the held-out split (data/splits.py)
MOST_HELDOUT = 1000  # held-out pairs that are ranked against each other


def neighbours(documents: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training pairs, held-out pairs) of sentences that follow one another; no sentence stands in two pairs."""
    pairs: tuple[list, list] = ([], [])
    for document in documents:
        sentences = split_sentences(document["text"])
        fits = [MIN_WORDS <= len(sentence.split()) <= MAX_WORDS for sentence in sentences]
        index = 0
        while index + 1 < len(sentences):
            good = fits[index] and fits[index + 1] and sentences[index] != sentences[index + 1]
            if good:
                pairs[split_of(document["id"]) == TEST].append((sentences[index], sentences[index + 1]))
            index += 2 if good else 1
    return pairs


def scored_pairs(path: str | Path) -> tuple[list[str], list[str], np.ndarray]:
    """First texts, second texts and scores [n] of a .tsv or .jsonl with sentence1, sentence2, score (or text, text_b).

    Raises UserError naming the line of a record that has not all three.
    """
    if ".jsonl" in Path(path).name:
        records = list(read_jsonl(path))
    else:
        with open_text(path) as file:
            records = list(enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=2))
    first, second, scores = [], [], []
    for line, record in records:
        a, b = record.get("sentence1", record.get("text")), record.get("sentence2", record.get("text_b"))
        try:
            score = float(record.get("score"))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            score = math.nan
        if not isinstance(a, str) or not isinstance(b, str) or not math.isfinite(score):
            raise UserError(f"{path}, line {line}: expected sentence1, sentence2 and a score. Correct or remove the line.")
        first.append(a)
        second.append(b)
        scores.append(score)
    if len(scores) < 2:
        raise UserError(f"{path}: fewer than two scored pairs. Give more.")
    return first, second, np.array(scores)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two lists; equal values share the mean of their ranks."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[place]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def info_nce(first: Tensor, second: Tensor, names: np.ndarray, temperature: float) -> Tensor:
    """Mean loss of unit vectors first, second [n, H]: each to find its own among all, both ways.

    `names` [n] numbers the second texts: one that says the same as the true one is no negative.
    """
    scores = first @ second.T / temperature
    same = torch.from_numpy(names[:, None] == names[None]).to(scores.device)
    same.fill_diagonal_(False)
    scores = scores.masked_fill(same, -math.inf)
    wanted = torch.arange(len(scores), device=scores.device)
    return (torch.nn.functional.cross_entropy(scores, wanted) + torch.nn.functional.cross_entropy(scores.T, wanted)) / 2


def measure(encoder: Any, tokenizer: Any, heldout: list[tuple[str, str]], test: Any, max_length: int) -> dict[str, float]:
    """Scores of an encoder: next_sentence (share of held-out pairs whose own is the nearest) and, with `test`, spearman."""
    first, second = (embed(encoder, tokenizer, list(texts), max_length) for texts in zip(*heldout, strict=True))
    nearest = (first @ second.T).argmax(1)
    scores = {"next_sentence": float((nearest == torch.arange(len(first))).float().mean()), "of": len(first)}
    if test is not None:
        a, b, gold = test
        cosines = (embed(encoder, tokenizer, a, max_length) * embed(encoder, tokenizer, b, max_length)).sum(1)
        scores["spearman"] = spearman(cosines.double().numpy(), gold)
    return scores


def run(config: DictConfig) -> int:
    """One run; returns the exit code."""
    settings = resolved(config)
    out = Path(settings["run_dir"])
    if is_done(out, settings):
        print(f"sentences: done already, reused {out}")
        return 0
    if settings["batch"] < 2 or not settings["temperature"] > 0:
        raise UserError("sentences: batch must be at least 2 (the others are the negatives), temperature above 0.")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    device = start(settings["device"]).device
    wanted = [settings["documents"]] if isinstance(settings["documents"], str) else settings["documents"]
    files = sorted(path for pattern in wanted for path in glob.glob(str(Path(pattern).expanduser())))
    if not files:
        raise UserError(f"documents={settings['documents']}: no such files. Give a glob of .jsonl(.gz) with a text each.")
    test = scored_pairs(settings["test"]) if settings["test"] else None
    train, heldout = neighbours(read_documents(files))
    random = np.random.default_rng(settings["seed"])
    train = [train[i] for i in random.permutation(len(train))[: settings["pairs"]]]
    heldout = [heldout[i] for i in np.random.default_rng(0).permutation(len(heldout))[:MOST_HELDOUT]]
    if len(train) < settings["batch"] or len(heldout) < 2:
        raise UserError(f"documents: {len(train)} pairs of sentences to train on, {len(heldout)} held out: too few. Give more.")

    torch.manual_seed(settings["seed"])
    encoder, tokenizer = load_encoder(settings["checkpoint"])
    encoder.to(device)
    optimizers = build_optimizers(encoder, settings["optimizer"])
    dtype = choose_dtype(settings["precision"], device)
    length = min(settings["max_length"], encoder.config.max_length)
    tracker = Tracker(out, settings, True, None)
    before = measure(encoder, tokenizer, heldout, test, length)
    tracker.log({"step": 0, "scores": before})
    print(f"sentences: {len(train):,} pairs, {len(heldout)} held out; before {shown(before)}")
    names = {text: number for number, text in enumerate(dict.fromkeys(second for _, second in train))}

    begun, step, skipped = time.time(), 0, 0
    per_epoch = len(train) // settings["batch"]  # the rest of an epoch waits for the next one's order
    total = per_epoch * settings["epochs"]
    encoder.train()
    for epoch in range(settings["epochs"]):
        order = np.random.default_rng([settings["seed"], epoch]).permutation(len(train))
        for number in tqdm(range(per_epoch), desc="sentences", unit=" steps", disable=None):
            chosen = [train[i] for i in order[number * settings["batch"] : (number + 1) * settings["batch"]]]
            rows = rows_of(tokenizer, [a for a, _ in chosen] + [b for _, b in chosen], length)
            set_learning_rate(optimizers, learning_rate_factor(settings["schedule"], step / total))
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                vectors = mean_vectors(encoder, rows, device)
            first, second = vectors.split(len(chosen))
            loss = info_nce(first, second, np.array([names[b] for _, b in chosen]), settings["temperature"])
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), settings["clip"] or math.inf)
            if torch.isfinite(norm) and torch.isfinite(loss):
                for optimizer in optimizers:
                    optimizer.step()
            else:
                skipped += 1
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % settings["log_every"] == 0 or step == total:
                tracker.log({"step": step, "loss": float(loss.detach()), "gradient_norm": float(norm)})
    after = measure(encoder, tokenizer, heldout, test, length)
    tracker.log({"step": step, "scores": after})
    own = {"max_length": length, "scores": shown(after), "temperature": settings["temperature"]}
    extra = {"name": settings["name"], **origin(settings["checkpoint"])}
    weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    write_checkpoint(out / "checkpoint", weights, encoder.config, tokenizer, extra, {SENTENCES: own})
    tracker.close({
        "status": "done", "name": settings["name"], "seed": settings["seed"], "steps": step, "pairs": len(train),
        "hours": (time.time() - begun) / 3600, "device": device.type, "peak_memory_bytes": peak_memory(device),
        "skipped_steps": skipped, "before": before, "after": after,
    })  # fmt: skip
    print(f"sentences: {step} steps in {(time.time() - begun) / 60:.1f} min; after {shown(after)}; {out / 'checkpoint'}")
    return 0


def shown(scores: dict[str, float]) -> str:
    """The scores in words."""
    text = f"{scores['next_sentence']:.1%} of {scores['of']} held-out sentences find their next one"
    return text + (f", Spearman {100 * scores['spearman']:.1f} on the scored pairs" if "spearman" in scores else "")


if __name__ == "__main__":
    launch(run, "sentences")
