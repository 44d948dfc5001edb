"""Train an encoder for sentence vectors: consecutive sentences get similar vectors, other sentences of the batch do not.

    python -m training.sentences checkpoint=runs/mine/pretrain documents=FOLDER/*.jsonl.gz
    python -m model.embeddings export runs/sentences/checkpoint OUT      a folder for SentenceTransformer(OUT)

Mean pooling; InfoNCE (arXiv 1807.03748) in both directions over cosines divided by a temperature (SimCSE, 2104.08821: 0.05);
every other pair of the batch is a negative, unless its text is the same. Pairs are two consecutive sentences of a document.
A fifth of the documents, the next-sentence task's test documents, is held out to measure how often the true next sentence is
the nearest of all and, if `test` names scored pairs, Spearman's correlation of cosine and score, before and after training.
The loop is flat: read it from `run` down. Settings: conf/sentences.yaml.
"""

import glob
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from common.code import code_files
from common.errors import UserError
from common.files import sha256_file
from common.launch import launch
from common.progress import progress
from common.settings import plain
from data.layout import Layout, move
from data.loader import ahead
from language.base import Language, load_language, one_language
from model.embeddings import SENTENCES, embed, flat, mean_of, rows_of
from model.folder import write_checkpoint
from model.store import language_of, load_encoder, read_config, resolve_checkpoint
from tasks.metrics import spearman
from tasks.next_sentence import MAX_WORDS, MIN_WORDS, read_documents, split_sentences
from tasks.records import load_task_file
from tasks.splits import split_of
from tokenization.tokenizer import Tokenizer
from training.distributed import start
from training.identity import is_complete, note_parts, weights_of
from training.optimizers import build_optimizers, set_learning_rate, step_unless
from training.precision import choose_dtype
from training.schedules import learning_rate_factor
from training.settings import Sentences, settings_of
from training.starting import origin
from training.tracking import Tracker, peak_memory, shown_as

ROOMS = ("model", "tokenization", "tasks", "language")  # whose code determines a run
TEST = 2  # number of the held-out split (tasks/splits.py)
MOST_HELDOUT = 1000  # number of held-out pairs that are ranked against each other


def neighbours(documents: Any, language: Language) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training pairs, held-out pairs) of consecutive sentences; no sentence is in two pairs."""
    pairs: tuple[list, list] = ([], [])
    for document in documents:
        sentences = split_sentences(document["text"], language)
        fits = [MIN_WORDS <= len(sentence.split()) <= MAX_WORDS for sentence in sentences]
        index = 0
        while index + 1 < len(sentences):
            good = fits[index] and fits[index + 1] and sentences[index] != sentences[index + 1]
            if good:
                pairs[split_of(document["id"]) == TEST].append((sentences[index], sentences[index + 1]))
            index += 2 if good else 1
    return pairs


def scored_pairs(path: str | Path) -> tuple[list[str], list[str], np.ndarray]:
    """First texts, second texts and scores [n] of a file of the kind similarity, in any of the formats of task files.

    Raises UserError naming the line of an incomplete record.
    """
    loaded = load_task_file(path, "similarity", split="test")
    if loaded.skipped:  # a score on fewer pairs would be another test
        bad = loaded.skipped[0]
        raise UserError(f"{path}, line {bad['line']}: {bad['reason']}. Correct or remove the line.")
    if len(loaded.examples) < 2:
        raise UserError(f"{path}: fewer than two scored pairs. Give more.")
    first, second, scores = ([example[key] for example in loaded.examples] for key in ("text", "text_b", "score"))
    return first, second, np.array(scores)


def repeats(names: np.ndarray) -> Tensor:
    """[n, n] true where second text j is the text of pair i once more; `names` [n] numbers the texts."""
    return torch.from_numpy((names[:, None] == names[None]) & ~np.eye(len(names), dtype=bool))


def info_nce(first: Tensor, second: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Mean loss of unit vectors first, second [n, H]: each must find its partner among all, in both directions.

    `same` [n, n] (`repeats`): a text equal to the true one is not a negative.
    """
    scores = (first @ second.T / temperature).masked_fill(same, -math.inf)
    wanted = torch.arange(len(scores), device=scores.device)
    return (torch.nn.functional.cross_entropy(scores, wanted) + torch.nn.functional.cross_entropy(scores.T, wanted)) / 2


def train_step(
    encoder: Any, batch: tuple[Tensor, Layout, Tensor], optimizers: list[Any], settings: Sentences, dtype: torch.dtype
) -> Tensor:
    """One step over the flat texts and `repeats` of a batch; [3] on the device: loss, gradient norm, 1 if it was skipped.

    The host waits for nothing.
    """
    ids, layout, same = batch
    with torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32):
        vectors = mean_of(encoder, ids, layout)
    first, second = vectors.split(len(same))
    loss = info_nce(first, second, same, settings.temperature)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), settings.clip or math.inf)
    bad = ~(torch.isfinite(norm) & torch.isfinite(loss.detach()))
    step_unless(bad, optimizers)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    return torch.stack([loss.detach(), norm, bad.float()])


def measure(encoder: Any, tokenizer: Any, heldout: list[tuple[str, str]], test: Any, max_length: int) -> dict[str, float]:
    """Scores of an encoder: next_sentence (share of held-out pairs whose partner is nearest) and, with `test`, spearman."""
    first, second = (embed(encoder, tokenizer, list(texts), max_length) for texts in zip(*heldout, strict=True))
    nearest = (first @ second.T).argmax(1)
    scores = {"next_sentence": float((nearest == torch.arange(len(first))).float().mean()), "of": len(first)}
    if test is not None:
        a, b, gold = test
        cosines = (embed(encoder, tokenizer, a, max_length) * embed(encoder, tokenizer, b, max_length)).sum(1)
        scores["spearman"] = spearman(cosines.double().numpy(), gold)
    return scores


def language_of_documents(settings: Sentences, tokenizer: Tokenizer) -> Language:
    """The language that `language` names, else the checkpoint's. UserError if there is none, or if the two differ."""
    trained_on = language_of(read_config(resolve_checkpoint(settings.checkpoint))[1], tokenizer)
    if not settings.across_languages:
        one_language(
            {f"checkpoint={settings.checkpoint}": trained_on, "language": settings.language},
            "Leave language out, or set across_languages=true if the documents are in it.",
        )
    if not (settings.language or trained_on):
        raise UserError("language: the checkpoint records none, and the ends of sentences depend on it. Set language=NAME.")
    return load_language(settings.language) if settings.language else trained_on


def parts_of(settings: Sentences, files: list[str]) -> dict[str, str]:
    """{what: digest} of all that determines a run besides its settings: code, encoder, documents, scored pairs."""
    code = code_files(*(f"training.{name}" for name in ("sentences", "optimizers", "schedules")), rooms=ROOMS)
    texts = [*files, *([settings.test] if settings.test and Path(settings.test).is_file() else [])]
    return {**code, "checkpoint": weights_of(settings.checkpoint), **{path: sha256_file(path) for path in texts}}


def run(config: DictConfig) -> int:
    """One run; returns the exit code."""
    settings = settings_of(config, Sentences)
    out = Path(settings.run_dir)
    wanted = [settings.documents] if isinstance(settings.documents, str) else settings.documents
    files = sorted(path for pattern in wanted for path in glob.glob(str(Path(pattern).expanduser())))
    parts = parts_of(settings, files)
    if is_complete(out, settings, parts):
        print(f"sentences: already complete, skipped: {out}")
        return 0
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = start(settings.device).device
    if not files:
        raise UserError(f"documents={settings.documents}: no such files. Give a glob of .jsonl(.gz) with a text each.")
    test = scored_pairs(settings.test) if settings.test else None
    encoder, tokenizer = load_encoder(settings.checkpoint)
    language = language_of_documents(settings, tokenizer)
    train, heldout = neighbours(read_documents(files), language)
    random = np.random.default_rng(settings.seed)
    train = [train[i] for i in random.permutation(len(train))[: settings.pairs]]
    heldout = [heldout[i] for i in np.random.default_rng(0).permutation(len(heldout))[:MOST_HELDOUT]]
    if len(train) < settings.batch or len(heldout) < 2:
        raise UserError(f"documents: {len(train)} pairs of sentences to train on, {len(heldout)} held out: too few. Give more.")

    torch.manual_seed(settings.seed)
    encoder.to(device)
    dtype = choose_dtype(settings.precision, device)
    optimizers = build_optimizers(encoder, settings.optimizer, dtype)
    length = min(settings.max_length, encoder.config.max_length)
    tags = [settings.language, f"seed {settings.seed}"]
    tracker = Tracker(out, settings.tracker, shown_as("sentences", settings.name, out.name, out, tags), plain(settings))
    note_parts(out, parts)
    before = measure(encoder, tokenizer, heldout, test, length)
    tracker.log({"step": 0, "scores": before})
    print(f"sentences: {len(train):,} pairs, {len(heldout)} held out; before {shown(before)}")
    names = {text: number for number, text in enumerate(dict.fromkeys(second for _, second in train))}

    def made(chosen: list[tuple[str, str]]) -> tuple[Tensor, Layout, Tensor]:
        rows = rows_of(tokenizer, [a for a, _ in chosen] + [b for _, b in chosen], length)
        same = repeats(np.array([names[b] for _, b in chosen]))
        return *flat(rows, device), move(same, device)

    begun, step, skipped = time.time(), 0, torch.zeros((), device=device)
    ready = map if device.type == "cpu" else (lambda make, items: ahead(items, make))  # no second thread for the same core
    per_epoch = len(train) // settings.batch  # the rest of an epoch waits for the next one's order
    total = per_epoch * settings.epochs
    encoder.train()
    for epoch in range(settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(train))
        parts = [order[number * settings.batch : (number + 1) * settings.batch] for number in range(per_epoch)]
        batches = ready(made, [[train[i] for i in part] for part in parts])
        for batch in progress(batches, total=per_epoch, desc="sentences", unit=" steps"):
            set_learning_rate(optimizers, learning_rate_factor(settings.schedule, step / total))
            numbers = train_step(encoder, batch, optimizers, settings, dtype)
            skipped += numbers[2]
            step += 1
            if step % settings.log_every == 0 or step == total:
                loss, norm, _ = numbers.tolist()  # only here does the host wait for the device
                tracker.log({"step": step, "loss": loss, "gradient_norm": norm})
    after = measure(encoder, tokenizer, heldout, test, length)
    tracker.log({"step": step, "scores": after})
    own = {"max_length": length, "scores": shown(after), "temperature": settings.temperature}
    extra = {"name": settings.name, "language": language.name, **origin(settings.checkpoint)}
    weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    write_checkpoint(out / "checkpoint", weights, encoder.config, tokenizer, extra, {SENTENCES: own})
    tracker.send_checkpoint(out / "checkpoint", out, settings.checkpoint)
    tracker.close({
        "status": "done", "name": settings.name, "seed": settings.seed, "steps": step, "pairs": len(train),
        "hours": (time.time() - begun) / 3600, "device": device.type, "peak_memory_bytes": peak_memory(device),
        "skipped_steps": int(skipped), "before": before, "after": after,
    })  # fmt: skip
    print(f"sentences: {step} steps in {(time.time() - begun) / 60:.1f} min; after {shown(after)}; {out / 'checkpoint'}")
    return 0


def shown(scores: dict[str, float]) -> str:
    """The scores as a sentence."""
    text = f"{scores['next_sentence']:.1%} of {scores['of']} held-out sentences find their next one"
    return text + (f", Spearman {100 * scores['spearman']:.1f} on the scored pairs" if "spearman" in scores else "")


if __name__ == "__main__":
    launch(run, "sentences", Sentences)
