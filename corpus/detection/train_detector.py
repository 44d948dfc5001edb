"""Train the language detector on labelled sentences.

    python -m corpus.detection.train_detector SENTENCES [--documents FILE ...] [--labelled tr=FILE ...]

Each line of SENTENCES has `text`, `lang` ("azj_Latn", "tur_Latn", ...), `group` (shared by translations of one sentence)
and `split`. Sentences of split train are used in every spelling (`language.spellings`); those of split test are evaluated
once at the end, and the result goes into detector.json. There are three more sources: detector_sentences.tsv, everyday
sentences written for this project, which add informal style and 39 languages that are only "other"; --documents, raw text
(`text` in each line), of which texts proven by language.codes.PROOFS are used, for their style; and --labelled, files of
any kind that corpus.matching.decontamination reads, each in one language.
"""

import argparse
import datetime
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, command
from common.files import read_jsonl, sha256_file, write_json
from common.progress import progress
from corpus.detection.detector import MODEL_FILE, Model, hashes, load, main_script, sample, save, units
from corpus.language import identify
from corpus.matching.decontamination import read_items, strings_of
from language.base import load_language
from language.codes import CENTRE, LABELS, PROOFS
from language.spellings import pieces, spellings

COMMAND = "python -m corpus.detection.train_detector"
OWN_SENTENCES = Path(__file__).with_name("detector_sentences.tsv")
BITS = {"Latn": 18, "Cyrl": 16, "Arab": 15}  # log2 of the hash slots by script: 0.26 M n-grams of 9 Latin languages
SMOOTHING = 0.05  # added to every count; chosen on split dev, like the next
SHARPNESS = 0.6  # factor of the log odds, which the detector divides by the square root of the number of n-grams
DOCUMENTS = 400  # most raw texts for each file and language: about as many as a language has sentences
SENTENCES = 100  # most sentences of a labelled file: a word frequent in one language's file alone would count for that language
FEWEST = 30  # fewest examples that make a language a label in a script; fewer are stray fragments
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
Example = tuple[str, str]  # label, text


def read_sentences(path: str | Path) -> list[dict[str, str]]:
    """The labelled sentences; raises UserError for a line without text, lang, group or split, or an unknown split."""
    rows = []
    for number, row in read_jsonl(path):
        for key in ("text", "lang", "group", "split"):
            if not isinstance(row.get(key), str):
                raise UserError(f"{path}, line {number}: {key!r} is missing or no text. A labelled sentence needs it.")
        if row["split"] not in ("train", "dev", "test"):
            raise UserError(f"{path}, line {number}: split {row['split']!r}, expected train, dev or test.")
        rows.append(row)
    splits: dict[str, str] = {}
    for row in rows:
        if splits.setdefault(row["group"], row["split"]) != row["split"]:
            raise UserError(f"{path}: group {row['group']!r} is in two splits. Translations of a sentence stay together.")
    if not any(row["split"] == "train" for row in rows):
        raise UserError(f"{path}: no sentence of split train. The detector is trained on those.")
    return rows


def examples_of(
    rows: list[dict[str, str]], documents: list[Example], own: list[Example], seed: int
) -> dict[str, list[Example]]:
    """Training examples by script: sentences of split train, our own and raw documents, in all spellings and lengths."""
    rng = random.Random(seed)
    sentences = [(label_of(row["lang"]), row["text"]) for row in rows if row["split"] == "train"]
    sentences += own + documents
    found: dict[str, list[Example]] = {}
    for label, text in sentences:
        for way_label, way in spellings(label, main_script(units(text)), text, rng):
            for piece in pieces(way, rng):
                found.setdefault(main_script(units(piece)), []).append((way_label, piece))
    kept = {}
    for script in BITS:
        counts = Counter(label for label, _ in found.get(script, []))
        kept[script] = [example for example in found.get(script, []) if counts[example[0]] >= FEWEST]
    label, script = CENTRE
    if label not in {own for own, _ in kept[script]}:
        raise UserError(f"no {label} in {script} among the sentences of split train. Add some.")
    return {script: learnt for script, learnt in kept.items() if len({label for label, _ in learnt}) > 1}


def label_of(lang: str) -> str:
    """The label of a code such as "azj_Latn"."""
    return LABELS.get(lang.split("_", 1)[0], "other")


def read_own() -> list[Example]:
    """Our own sentences as (label, text); languages without a label of their own are "other"."""
    known = set(LABELS.values())
    lines = OWN_SENTENCES.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    # Russian in Latin letters is not a script of Russian: "other".
    return [(label if label in known and not (label == "ru" and text.isascii()) else "other", text) for label, text in pairs]


def read_documents(path: str | Path, seed: int) -> list[Example]:
    """(label, text) of up to `DOCUMENTS` texts of each language that PROOFS can prove.

    They are drawn by `seed` and cut at 300 characters, so that the style of a source does not count for one language.
    """
    texts = [row["text"][:300] for _, row in read_jsonl(path) if isinstance(row.get("text"), str)]
    proven = {label: list(filter(proves, texts)) for label, proves in PROOFS.items()}
    rng = random.Random(seed)
    return [(label, text) for label, found in proven.items() for text in rng.sample(found, min(DOCUMENTS, len(found)))]


def read_labelled(given: str, seed: int) -> list[Example]:
    """(label, sentence) of up to `SENTENCES` sentences of the file in "tr=FILE", drawn by `seed`; of CENTRE proven ones."""
    label, _, path = given.partition("=")
    if label not in set(LABELS.values()) or not path:
        raise UserError(f"--labelled {given}: expected LANGUAGE=FILE with one of {', '.join(sorted(set(LABELS.values())))}.")
    texts = sorted({text for _, item in read_items(Path(path)) for _, text in strings_of(item)})
    sentences = [part.strip() for text in texts for part in _SENTENCE_END.split(text)]
    sentences = [sentence for sentence in sentences if 30 <= len(sentence) <= 300]
    if label == CENTRE[0]:
        sentences = list(filter(PROOFS[label], sentences))
    chosen = random.Random(seed).sample(sentences, min(SENTENCES, len(sentences)))
    return [(label, sentence) for sentence in chosen]


def fit(examples: list[Example], bits: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels, weights [2**bits, labels] and bias of a naive Bayes model over n-grams, under equal priors.

    Weights are log P(n-gram | language), minus their mean over the languages. With a few hundred sentences a language this
    accepts fewer sentences of similar languages than a logistic regression on the same n-grams, which overfits 346 sentences.
    """
    labels = sorted({label for label, _ in examples})
    weights = np.empty((1 << bits, len(labels)), np.float32)
    for place, label in enumerate(labels):
        found = np.concatenate([hashes(units(sample(text)), bits) for own, text in examples if own == label])
        counts = np.bincount(found, minlength=1 << bits) + SMOOTHING
        weights[:, place] = SHARPNESS * np.log(counts / counts.sum())
    weights -= weights.mean(axis=1, keepdims=True)
    return labels, weights, np.zeros(len(labels), np.float32)


def confusion(rows: list[dict[str, str]], models: dict[str, Model]) -> dict[str, dict[str, int]]:
    """How often the detector gives each label to the sentences of each `lang`: {lang: {label: count}}."""
    answers: dict[str, Counter] = {}
    centre = load_language(CENTRE[0])
    for row in rows:
        answers.setdefault(row["lang"], Counter())[identify(row["text"], centre, models).label] += 1
    return {lang: dict(counts.most_common()) for lang, counts in sorted(answers.items())}


def train(
    sentences: str | Path, documents: list[str], out: str | Path, seed: int, labelled: Sequence[str] = ()
) -> dict[str, Any]:
    """Fit the detector, write it to `out` (.npz) and its provenance beside it (.json); returns the provenance.

    Same input and seed give the same bytes. Raises UserError for input that cannot be used for training.
    """
    rows = read_sentences(sentences)
    texts = [text for path in documents for text in read_documents(path, seed)]
    more = [example for given in labelled for example in read_labelled(given, seed)]
    examples = examples_of(rows, texts + more, read_own(), seed)
    models = {}
    for script in progress(examples, desc="scripts"):
        models[script] = fit(examples[script], BITS[script])
    save(out, models)
    counts: dict[str, Counter] = {}
    for row in rows:
        counts.setdefault(row["lang"], Counter())[row["split"]] += 1
    provenance = {
        "what": "hashed 1- to 5-gram naive Bayes per script; read by corpus/detection/detector.py",
        "command": " ".join(
            [
                f"{COMMAND} SENTENCES",
                *(["--documents FILE"] if documents else []),
                *(["--labelled LANGUAGE=FILE ..."] if labelled else []),
                f"--seed {seed}",
            ]
        ),
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "sentences": {
            "what": f"labelled sentences in {len(counts)} language-scripts, of a real set, not distributed",
            "sha256": sha256_file(sentences),
            "learnt": "split train in all spellings; constants set on dev; test judged at the end only, thrice: see LOG.md",
            "counts": {lang: dict(sorted(count.items())) for lang, count in sorted(counts.items())},
        },
        "documents": {
            "what": "social comments of a real set, not distributed; those whose letters or words prove their language, 300 "
            "characters of each at most"
            if documents
            else "none",
            "sha256": [sha256_file(path) for path in documents],
            "learnt": dict(Counter(label for label, _ in texts)),
        },
        "labelled": {
            "what": "sentences of files of the real set in one language each, not distributed" if labelled else "none",
            "sha256": [sha256_file(given.partition("=")[2]) for given in labelled],
            "learnt": dict(Counter(label for label, _ in more)),
        },
        "own_sentences": {
            "what": "everyday sentences in 46 languages, written for this project: detector_sentences.tsv",
            "sha256": sha256_file(OWN_SENTENCES),
        },
        "examples": {script: dict(Counter(label for label, _ in examples[script]).most_common()) for script in examples},
        "sha256": sha256_file(out),
        "bytes": Path(out).stat().st_size,
    }
    return provenance


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sentences", help="labelled sentences (.jsonl or .jsonl.gz)")
    parser.add_argument("--documents", nargs="*", default=[], help="raw text (.jsonl, .jsonl.gz)")
    parser.add_argument("--labelled", nargs="*", default=[], metavar="LANGUAGE=FILE", help="task files in one language each")
    parser.add_argument("--out", default=str(MODEL_FILE), help="the .npz to write; its provenance goes beside it (.json)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    provenance = train(options.sentences, options.documents, options.out, options.seed, options.labelled)
    models = load(Path(options.out))
    test = [row for row in read_sentences(options.sentences) if row["split"] == "test"]
    if test:
        provenance["test_confusion"] = confusion(test, models)
    write_json(Path(options.out).with_suffix(".json"), provenance)
    print(f"{options.out}: {provenance['bytes']:,} bytes, {sum(map(len, provenance['examples'].values()))} labels")


if __name__ == "__main__":
    sys.exit(main())
