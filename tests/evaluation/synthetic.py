"""Prediction files of any size without a model, for tests of the report and for timing it.

    python tests/evaluation/synthetic.py DIR [models] [seeds]

writes DIR/<model>/<task>/seed-<n>/ for six tasks of the published sizes, as benchmark.py would.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.files import write_json, write_jsonl

TOPICS = [f"elm sahəsi {number}" for number in range(23)]
WORDS = [
    "ağac",
    "bulaq",
    "çay",
    "dəniz",
    "əl",
    "fikir",
    "göl",
    "həyat",
    "ilk",
    "işıq",
    "qış",
    "yol",
    "kitab",
    "məktəb",
    "şəhər",
    "dağ",
    "su",
    "ev",
    "insan",
    "dövlət",
]
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
SIZES = {"azsci": 1152, "aznsp": 1500, "cbmcq": 1700, "wikiann": 1000, "mrpc": 1725, "ldquad": 1600}
KINDS = {"azsci": "classification", "aznsp": "pair", "cbmcq": "choice", "wikiann": "tagging", "mrpc": "pair", "ldquad": "qa"}


def _scores(random, gold, classes, skill):
    """Log-probabilities whose argmax is right as often as `skill` says, roughly."""
    logits = random.normal(0, 1, size=classes)
    logits[gold] += skill
    return [round(float(x), 6) for x in logits - np.logaddexp.reduce(logits)]


def _sentence(random, length):
    return " ".join(random.choice(WORDS, size=length))


def example(kind, number, random):
    """The item that all models see: drawn from its number only."""
    if kind == "classification":
        return {"gold": TOPICS[int(random.integers(23))], "text": _sentence(random, int(random.integers(4, 16)))}
    if kind == "pair":
        return {"gold": str(int(random.integers(2))), "text": _sentence(random, 24), "group": f"doc{number // 4}"}
    if kind == "choice":
        options = [_sentence(random, int(random.integers(1, 5))) + f" {place}" for place in range(int(random.integers(2, 8)))]
        gold = int(random.integers(len(options)))
        return {"gold": gold, "group": f"fənn {number % 9}", "question": _sentence(random, 9), "options": options}
    if kind == "tagging":
        tags, words = [], _sentence(random, int(random.integers(5, 18))).split()
        while len(tags) < len(words):
            kind_ = str(random.choice(["O", "O", "O", "PER", "ORG", "LOC"]))
            tags += ["O"] if kind_ == "O" else [f"B-{kind_}", f"I-{kind_}"]
        return {"gold": tags[: len(words)], "words": words}
    context = _sentence(random, 5)
    return {"gold": [context if number % 3 else ""], "question": _sentence(random, 8), "group": f"context {number // 5}"}


def predicted(kind, item, random, skill):
    """One model's answer to an item."""
    if kind in ("classification", "pair"):
        names = TOPICS if kind == "classification" else ["0", "1"]
        scores = _scores(random, names.index(item["gold"]), len(names), skill)
        return {"pred": names[int(np.argmax(scores))], "scores": dict(zip(names, scores, strict=True))}
    if kind == "choice":
        scores = _scores(random, item["gold"], len(item["options"]), skill / 3)
        return {"pred": int(np.argmax(scores)), "scores": scores}
    if kind == "tagging":
        return {"pred": [tag if random.random() < 0.8 + skill / 30 else str(random.choice(TAGS)) for tag in item["gold"]]}
    gold, luck = item["gold"][0], random.random()
    words = gold.split() or ["cavab"]
    wrong = " ".join(words[:-1]) if luck < 0.8 else (gold + "ın" if luck < 0.9 else "" if gold else "bir cavab")
    return {"pred": gold if luck < 0.3 + skill / 8 else wrong, "scores": {"best": 1.0, "null": 0.0}}


def write_run(folder, model, task, kind, seed, size, skill, **more):
    """One seed folder; `more` goes into its summary."""
    place = Path(folder) / model / task / f"seed-{seed}"
    for split, count in (("test", size), ("dev", size // 4)):
        rows = []
        base = np.random.default_rng(len(task) + 1000 * (split == "dev"))
        # One stream for the run, so that seeds and models differ; items come from a shared stream.
        random = np.random.default_rng([seed, len(model), sum(map(ord, model + task)), split == "dev"])
        for number in range(count):
            item = example(kind, number, base)
            answer = predicted(kind, item, random, skill)
            head = {"id": f"{split}-{number}", "gold": item.pop("gold")}
            rows.append({**head, **answer, **item, "tokens": 20, "truncated": False})
        write_jsonl(place / f"predictions-{split}.jsonl", rows)
    labels = TOPICS if kind == "classification" else ["0", "1"] if kind == "pair" else None
    summary = {
        "model": model,
        "task": task,
        "kind": kind,
        "seed": seed,
        "language": "azerbaijani",
        "labels": labels,
        "hours": 0.1 * skill,
    }
    summary |= {"trainable_parameters": 10**6, "train_tokens": 10**5, "peak_memory_bytes": 2**31, "energy_kwh": None}
    write_json(place / "summary.json", summary | {"examples": {"test": size}} | more)
    return place


def write_benchmark(folder, models, seeds, sizes=SIZES):
    """All runs of models {name: skill} on the tasks of `sizes`."""
    for model, skill in models.items():
        for task, size in sizes.items():
            for seed in range(seeds):
                write_run(folder, model, task, KINDS[task], seed, size, skill + 0.1 * np.sin(seed))


if __name__ == "__main__":
    count, runs = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else (8, 10)
    write_benchmark(Path(sys.argv[1]), {f"model-{number}": 2.0 + 0.3 * number for number in range(count)}, runs)
