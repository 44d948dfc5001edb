"""One vector a token, distilled from an encoder: sentence vectors without a forward pass, for CPUs and very long text.

    python -m training.static_embeddings make CHECKPOINT TEXT OUT [--width 128] [--tokens 1000000]
    python -m training.static_embeddings score OUT --task az_topic --out runs/mine/benchmark

A token's vector is the mean of its last hidden states over a text (Bommasani, Davis & Cardie 2020, ACL, §3), reduced to
`width` by PCA and weighted by a / (a + p), p its frequency (Arora, Liang & Ma 2017, ICLR, a = 1e-3). A token that the text
lacks is read alone. A text's vector is the mean over its tokens, at unit length. TEXT is a built corpus, of which each source
gives an equal share of --tokens, or a .jsonl[.gz] file with "text". `score` adds the row NAME-static to a table: a linear
classifier over the vectors, or for similarity a ridge regression, whose regularisation is chosen on dev.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from common.errors import UserError, command
from common.files import put_in_place, read_json, read_jsonl, sync_tree, write_json, writing
from common.launch import read_option, resolved
from common.progress import progress
from common.settings import typed
from corpus.build import list_sources, read_documents
from data.layout import Layout
from evaluation.baselines import completed, write_rows
from model.encoder import Encoder
from model.folder import SUMS, WEIGHTS
from model.store import language_of, load_encoder, read_config, resolve_checkpoint
from tasks.base import joined, log_softmax, rounded
from tasks.load import Task, load_task
from tasks.scoring import score_predictions
from tasks.settings import TaskSettings
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer
from training.distributed import start
from training.runs import write_inputs

VECTORS, SETTINGS = "static.safetensors", "static.json"
FREQUENT = 1e-3  # a of the weights, the paper's
AT_ONCE = 8192  # tokens of one forward pass
KINDS = ("classification", "pair", "similarity")
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # C of the classifier; of a ridge 1 / alpha


class StaticEmbeddings:
    """Vectors [V, width], already weighted, and the tokenizer whose ids they belong to."""

    def __init__(self, vectors: np.ndarray, tokenizer: Tokenizer, name: str) -> None:
        self.vectors, self.tokenizer, self.name = vectors, tokenizer, name

    @classmethod
    def read(cls, folder: str | Path) -> "StaticEmbeddings":
        """Of a folder that `make` wrote; UserError for any other folder, and for another tokenizer in it."""
        folder = Path(folder)
        if not (folder / SETTINGS).exists():
            raise UserError(
                f"{folder}: no {SETTINGS} in it. Make it: python -m training.static_embeddings make CHECKPOINT TEXT OUT"
            )
        said, tokenizer = read_json(folder / SETTINGS), load_tokenizer(folder)
        if said["tokenizer"] != tokenizer.identity:
            raise UserError(f"{folder}: holds tokenizer {tokenizer.identity}, its vectors belong to {said['tokenizer']}.")
        return cls(safetensors.numpy.load_file(folder / VECTORS)["vectors"], tokenizer, said["name"])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, width] fp32; zeros for a text without tokens."""
        rows = self.tokenizer.encode_batch(list(texts))
        sums = np.stack([self.vectors[ids].sum(0) for ids in rows]) if rows else np.zeros((0, self.vectors.shape[1]))
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        return (sums / np.maximum(norms, 1e-12)).astype(np.float32)


def texts_of(path: str | Path) -> list[Iterator[str]]:
    """The documents of each source of a built corpus, or of one .jsonl[.gz] file."""

    def of_file() -> Iterator[str]:
        for line, record in read_jsonl(path):
            if not isinstance(record.get("text"), str):
                raise UserError(f'{path}, line {line}: no "text". Each line must be an object with a "text".')
            yield record["text"]

    if not Path(path).is_dir():
        return [of_file()]
    return [(record["text"] for record in read_documents(path, name)) for name in list_sources(path)]


def windows_of(sources: Sequence[Iterator[str]], tokenizer: Tokenizer, room: int, most: int) -> list[np.ndarray]:
    """Token ids [n <= room] of documents, from each source an equal share of `most` tokens, from its beginning."""
    found: list[np.ndarray] = []
    for texts in sources:
        used = 0
        for text in texts:
            ids = tokenizer.encode_batch([text])[0].astype(np.int64)
            found += [ids[begin : begin + room] for begin in range(0, len(ids), room)]
            used += len(ids)
            if used >= most / len(sources):
                break
    return found


@torch.no_grad()
def mean_states(
    encoder: Encoder, tokenizer: Tokenizer, windows: list[np.ndarray], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each token's last hidden states [V, H] over the windows, and its count [V] there; a new token is read alone."""
    size = tokenizer.vocab_size
    sums, counts = torch.zeros(size, encoder.config.hidden_size, dtype=torch.float64), np.zeros(size, np.int64)
    encoder.eval().to(device)

    def add(rows: list[np.ndarray]) -> None:
        framed = [np.concatenate([[tokenizer.cls_id], row, [tokenizer.sep_id]]) for row in rows]
        lengths, ids = [len(row) for row in framed], torch.from_numpy(np.concatenate(framed))
        hidden = encoder(ids.to(device), Layout.of(lengths, device)).double().cpu()
        inside = torch.ones(len(ids), dtype=torch.bool)
        ends = np.cumsum(lengths)
        inside[torch.from_numpy(np.concatenate([ends - 1, ends - lengths]))] = False
        sums.index_add_(0, ids[inside], hidden[inside])

    def add_all(rows: list[np.ndarray], what: str) -> None:
        rows = sorted(rows, key=len)
        begin = 0
        with progress(total=len(rows), desc=what, unit=" windows") as bar:
            while begin < len(rows):
                end, used = begin + 1, len(rows[begin]) + 2
                while end < len(rows) and used + len(rows[end]) + 2 <= AT_ONCE:
                    used += len(rows[end]) + 2
                    end += 1
                add(rows[begin:end])
                bar.update(end - begin)
                begin = end

    add_all([row for row in windows if len(row)], "hidden states")
    for row in windows:
        np.add.at(counts, row, 1)
    unseen = np.setdiff1d(np.flatnonzero(counts == 0), tokenizer.special_ids)
    add_all([np.array([token]) for token in unseen], "unseen tokens")
    return (sums / torch.from_numpy(np.maximum(counts, 1))[:, None]).numpy(), counts


def reduce(states: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """Vectors [V, width] fp32: centred, on the first principal axes of the text's tokens, times a / (a + p).

    Centre and axes weigh each token by its frequency, so that they are those of the text and not of the vocabulary's tail.
    """
    share = (counts + 1) / (counts + 1).sum()
    centred = states - share @ states
    values, axes = np.linalg.eigh((centred * share[:, None]).T @ centred)
    axes = axes[:, np.argsort(-values)[:width]]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)  # signs are free: fix them
    return ((centred @ axes) * (FREQUENT / (FREQUENT + share))[:, None]).astype(np.float32)


def make(checkpoint: str, text: str | Path, out: Path, width: int, tokens: int, device: torch.device) -> dict[str, Any]:
    """Write `out` from a checkpoint and text; returns static.json. UserError for an existing folder or an impossible width."""
    if out.exists():
        raise UserError(f"{out}: exists already. Give another folder, or remove it first.")
    encoder, tokenizer = load_encoder(checkpoint)
    if not 1 <= width <= encoder.config.hidden_size:
        raise UserError(f"--width {width}: expected 1 to {encoder.config.hidden_size}, the width of the encoder.")
    windows = windows_of(texts_of(text), tokenizer, encoder.config.max_length - 2, tokens)
    if not sum(map(len, windows)):
        raise UserError(f"{text}: no text in it.")
    states, counts = mean_states(encoder, tokenizer, windows, device)
    folder = resolve_checkpoint(checkpoint)
    language = language_of(read_config(folder)[1], tokenizer)
    said = {
        "name": f"{read_config(folder)[1].get('name') or folder.name}-static",
        "width": width,
        "tokens_read": int(counts.sum()),
        "tokens_seen": int((counts > 0).sum()),
        "tokenizer": tokenizer.identity,
        "weights": read_json(folder / SUMS)[WEIGHTS] if (folder / SUMS).exists() else None,
        "language": language and language.name,
    }
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    tokenizer.save(beside)
    with writing(out / VECTORS):
        safetensors.numpy.save_file({"vectors": reduce(states, counts, width)}, beside / VECTORS)
    write_json(beside / SETTINGS, said)
    sync_tree(beside)
    put_in_place(beside, out)
    return said


def features(static: StaticEmbeddings, examples: Sequence[dict[str, Any]]) -> np.ndarray:
    """Of a text its vector; of a pair both, their distance and product by element, and their cosine."""
    first = static.embed([example["text"] for example in examples])
    if "text_b" not in examples[0]:
        return first
    second = static.embed([example["text_b"] for example in examples])
    return np.hstack([first, second, np.abs(first - second), first * second, (first * second).sum(1, keepdims=True)])


def predict(static: StaticEmbeddings, task: Task) -> list[dict[str, Any]]:
    """A record for each example of dev and test; the regularisation with the best dev score."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, asked = (features(static, part) for part in (task.train, [*task.dev, *task.test]))
    examples, best, kept = [*task.dev, *task.test], -np.inf, []
    for strength in STRENGTHS:
        if task.kind == "similarity":
            known = np.array([example["score"] for example in task.train])
            model = make_pipeline(StandardScaler(), Ridge(alpha=len(train) / strength)).fit(train, known)
            bounds = [float(known.min()), float(known.max())]
            rows = [
                {"pred": round(float(value), 6), "range": bounds, "text": joined(example)}
                for value, example in zip(model.predict(asked), examples, strict=True)
            ]
        else:
            known = [example["label"] for example in task.train]
            logs = np.full((len(asked), len(task.labels)), np.log(1e-9))
            if len(set(known)) == 1:
                logs[:, task.labels.index(known[0])] = 0.0
            else:
                logistic = LogisticRegression(C=strength / 100, max_iter=1000, class_weight="balanced")
                model = make_pipeline(StandardScaler(), logistic).fit(train, known)
                logs[:, [task.labels.index(label) for label in model.classes_]] = model.predict_log_proba(asked)
            rows = [
                {
                    "pred": task.labels[int(row.argmax())],
                    "scores": dict(zip(task.labels, rounded(log_softmax(row)), strict=True)),
                    "text": joined(example),
                }
                for row, example in zip(logs, examples, strict=True)
            ]
        rows = completed(rows, task.own, examples)
        dev = score_predictions(rows[: len(task.dev)], task.own, task.labels, task.metric, task.positive, full=False)["score"]
        if dev > best:
            best, kept = dev, rows
    return kept


def score(static: StaticEmbeddings, task: Task, out: Path) -> Path:
    """Write <out>/<name>/<task>/seed-0; UserError for a kind of task that sentence vectors cannot answer."""
    if task.kind not in KINDS:
        raise UserError(f"task {task.name}: is {task.kind}; static vectors answer {', '.join(KINDS)}. Name another task.")
    write_inputs(out, task)
    return write_rows(out, static.name, task, lambda: predict(static, task))


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.static_embeddings", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("make", help="write a folder of static embeddings")
    build.add_argument("checkpoint", help="checkpoint, run folder, Hugging Face folder or hub://owner/name")
    build.add_argument("text", help='.jsonl[.gz] with "text", or the folder of a built corpus')
    build.add_argument("out", help="folder to write")
    build.add_argument("--width", type=int, default=128, help="units of a vector (default 128)")
    build.add_argument("--tokens", type=int, default=1_000_000, help="tokens of the text that are read (default 1,000,000)")
    build.add_argument("--device", default="auto", help="auto, cpu or cuda")
    judge = commands.add_parser("score", help="add a row to a table")
    judge.add_argument("static", help="folder that `make` wrote")
    judge.add_argument("--task", required=True, action="append", help="a file of conf/task; may be given several times")
    judge.add_argument("--out", required=True, help="folder of the results, for example that of a benchmark")
    options = parser.parse_args(arguments)
    if options.command == "make":
        device = start(options.device).device
        said = make(options.checkpoint, options.text, Path(options.out), options.width, options.tokens, device)
        print(f"{said['tokens_seen']:,} tokens seen in {said['tokens_read']:,}, width {said['width']}; {options.out}")
        return
    static = StaticEmbeddings.read(options.static)
    for name in options.task:
        task = load_task(typed(TaskSettings, resolved(read_option("task", name), TaskSettings), "task"))
        folder = score(static, task, Path(options.out))
        made = read_json(folder / "summary.json")
        print(f"{made['model']} on {made['task']}: dev {made['metric']} {100 * made['dev_score']:.1f}, "
              f"test {100 * made['test_score']:.1f}; {folder}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
