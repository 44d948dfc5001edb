"""Text for task-adaptive training: a task's training texts, and the passages of a corpus that are most like them by BM25.

    python -m training.task_text az_topic --corpus runs/mine/corpus --out runs/task_adaptive/text [--neighbours 50]
    python prepare.py experiment=task_adaptive start_from=CHECKPOINT corpus.path=runs/task_adaptive/text
    python train.py experiment=task_adaptive start_from=CHECKPOINT corpus.path=runs/task_adaptive/text

Dev and test are not read for it, and a passage with one of their items in it is left out. Each training text asks for its
`neighbours` best passages (Gururangan et al. 2020, arXiv 2004.10964, section 4.2; TLM, arXiv 2111.04130, with BM25). The same
input gives the same bytes.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from common.errors import UserError, command
from common.files import read_json, write_jsonl
from common.launch import read_option, resolved
from common.settings import typed
from corpus.build import REPORT, list_sources, read_documents
from corpus.matching.decontamination import TaskIndex
from language.base import Language, load_language
from tasks.base import kind_of
from tasks.load import Task, load_task
from tasks.settings import TaskSettings

K1, B = 1.2, 0.75  # of BM25: Lucene's
LETTERS = 5  # of a term: the beginning of a word; for Turkish as good as a stemmer (Can et al. 2008, doi 10.1002/asi.20750)
WORDS = 64  # least length of a passage, so that lines of verse or of a list are joined
CHUNK = 2_000  # passages scored at once


def passages(corpus: str | Path) -> Iterator[tuple[str, str]]:
    """(id, text) of the passages of a built corpus, in order: whole lines of a document, joined up to WORDS words or more."""
    for source in list_sources(corpus):
        for document in read_documents(corpus, source):
            held: list[str] = []
            number = 0
            for line in [*document["text"].split("\n"), None]:
                if held and (line is None or sum(len(part.split()) for part in held) >= WORDS):
                    yield f"{document['id']}#{number}", "\n".join(held)
                    held, number = [], number + 1
                if line and line.strip():
                    held.append(line)


def terms(text: str, language: Language) -> list[str]:
    """The terms of a text: its words in lower case, cut to LETTERS letters."""
    return [word[:LETTERS] for word in re.findall(r"\w+", language.lower(text))]


def neighbours(queries: list[str], corpus: str | Path, count: int, language: Language, chunk: int = CHUNK) -> list[int]:
    """Numbers of the passages that are among the `count` best of a query by BM25, ascending; ties go to the lower number.

    Reads the corpus twice, `chunk` passages at a time, and keeps only the best of each query in memory.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=lambda text: terms(text, language))
    asked = (vectorizer.fit_transform(queries) > 0).astype(np.float32).T.tocsc()  # [terms, queries]
    frequency, lengths = np.zeros(asked.shape[0]), []
    for texts in _chunks(corpus, chunk):
        frequency += (vectorizer.transform(texts) > 0).sum(0).A1
        lengths += [len(terms(text, language)) for text in texts]
    size, mean = len(lengths), max(1.0, float(np.mean(lengths or [1])))
    weight = np.log1p((size - frequency + 0.5) / (frequency + 0.5))
    best = np.zeros((len(queries), count), np.float32)  # a passage that shares no term is no neighbour
    found = np.full((len(queries), count), -1)
    begin = 0
    for texts in _chunks(corpus, chunk):
        counts = vectorizer.transform(texts).astype(np.float64).tocoo()
        norm = K1 * (1 - B + B * np.array(lengths[begin : begin + len(texts)])[counts.row] / mean)
        counts.data = weight[counts.col] * counts.data * (K1 + 1) / (counts.data + norm)
        scores = (counts.tocsr().astype(np.float32) @ asked).toarray().T  # [queries, passages]
        for query in np.flatnonzero((scores > best[:, -1:]).any(1)):
            places = np.flatnonzero(scores[query] > best[query, -1])
            values = np.concatenate([best[query], scores[query, places]])
            numbers = np.concatenate([found[query], begin + places])
            order = np.argsort(-values, kind="stable")[:count]
            best[query], found[query] = values[order], numbers[order]
        begin += len(texts)
    return np.unique(found[found >= 0]).tolist()


def _chunks(corpus: str | Path, size: int) -> Iterator[list[str]]:
    texts = (text for _, text in passages(corpus))
    while chunk := list(islice(texts, size)):
        yield chunk


def write_task_text(task: Task, corpus: str | Path, out: str | Path, count: int, language: Language) -> dict[str, int]:
    """Write <out>/task.jsonl (training texts) and <out>/neighbours.jsonl, each {"id", "text"}; return their numbers.

    "held back": neighbours that hold an item of dev or test.
    """
    lines = kind_of(task.kind).lines
    own = [{"id": f"{task.name}-{example['id']}", "text": "\n".join(lines(example))} for example in task.train]
    index = TaskIndex(language, items=[("item", line) for part in (task.dev, task.test) for e in part for line in lines(e)])
    wanted = set(neighbours([one["text"] for one in own], corpus, count, language)) if count else set()
    near = [{"id": name, "text": text} for number, (name, text) in enumerate(passages(corpus)) if number in wanted]
    kept = [one for one in near if not index.hits(one["text"])]
    write_jsonl(Path(out) / "task.jsonl", own)
    write_jsonl(Path(out) / "neighbours.jsonl", kept)
    return {"task": len(own), "neighbours": len(kept), "held back": len(near) - len(kept)}


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.task_text", description=__doc__.split("\n", 1)[0])
    parser.add_argument("task", help="a file of conf/task")
    parser.add_argument("--corpus", required=True, help="folder of a built corpus (prepare.py)")
    parser.add_argument("--out", required=True, help="folder of the text")
    parser.add_argument("--neighbours", type=int, default=50, help="passages for each training text; 0: the task's text alone")
    options = parser.parse_args(arguments)
    if not (Path(options.corpus) / REPORT).exists():
        raise UserError(f"--corpus {options.corpus}: no built corpus there. Make it with prepare.py, or name its folder.")
    if options.neighbours < 0:
        raise UserError(f"--neighbours {options.neighbours}: expected 0 or more.")
    language = load_language(read_json(Path(options.corpus) / REPORT)["language"])
    chosen = read_option("task", options.task)
    if "${" in str(OmegaConf.to_container(chosen)["language"]):
        chosen.language = language.name
    task = load_task(typed(TaskSettings, resolved(chosen, TaskSettings), "task"))
    made = write_task_text(task, options.corpus, options.out, options.neighbours, language)
    print(
        f"{options.out}: {made['task']:,} training texts of {task.name}, {made['neighbours']:,} passages like them "
        f"({made['held back']:,} held back, which hold an item of dev or test)"
    )


if __name__ == "__main__":
    sys.exit(main())
