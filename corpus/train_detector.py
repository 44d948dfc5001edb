"""Train the language detector: python -m corpus.train_detector SENTENCES [--documents FILE ...] [--labelled tr=FILE ...].

SENTENCES has `text`, `lang` ("azj_Latn", "tur_Latn", ...), `group` (ties translations of one sentence) and `split` a
line. Sentences of split train are learnt in every spelling (`corpus.spellings`), those of test are judged once at
the end and the outcome goes into detector.json. Three more sources: detector_sentences.tsv, everyday sentences written
for this project, which give the informal tone and 39 languages that are only "other"; with --documents, raw text
(`text` a line), of which only what ə proves to be Azerbaijani and two words to be Turkish is learnt, for its tone; and
with --labelled, files of any kind that corpus.decontamination reads, the text of each in one language.
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
from tqdm import tqdm

from common.errors import UserError, command
from common.files import read_jsonl, sha256_file, write_json
from corpus.decontamination import read_items, strings_of
from corpus.detector import MODEL_FILE, Model, hashes, load, main_script, sample, save, surely_azerbaijani, units
from corpus.language import identify
from corpus.spellings import pieces, spellings
from language.azerbaijani import lower

OWN_SENTENCES = Path(__file__).with_name("detector_sentences.tsv")
# Languages by the first part of `lang`; what is not here is "other".
LABELS = {
    "azj": "az", "azb": "azb", "tur": "tr", "tuk": "tk", "uzn": "uz", "crh": "crh", "gag": "gag", "eng": "en", "rus": "ru",
    "kaz": "kk", "kir": "ky", "tat": "tt", "bak": "ba", "pes": "fa", "uig": "ug", "hye": "hy", "kat": "ka",
}  # fmt: skip
BITS = {"Latn": 18, "Cyrl": 16, "Arab": 15}  # buckets by script, as logarithms: 0.26 M n-grams of 9 Latin languages
SMOOTHING = 0.05  # added to every count; chosen on split dev, as the next
SHARPNESS = 0.6  # of the log odds, which the detector divides by the square root of the number of n-grams
DOCUMENTS = 400  # of raw text at most, per file and language: about as many as sentences of a language
SENTENCES = 100  # of a labelled file at most: what one language alone has much of draws words of all to it
FEWEST = 30  # examples that make a language a label in a script; fewer are stray fragments
# Words and endings that Azerbaijani lacks; two of them in a text without ə, q and x prove Turkish.
_TURKISH = re.compile(r"\b(?:için|değil|gibi|kadar|şey|böyle|neden|şimdi|güzel|bence|\w+[ıiuü]yor(?:um|sun|lar)?)\b")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
_SCHWA_Q_X = re.compile("[əƏqQxX]")
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
        raise UserError(f"{path}: no sentence of split train. The detector learns from those.")
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
    if "az" not in {label for label, _ in kept["Latn"]}:
        raise UserError("no Azerbaijani in Latin script (lang azj_Latn) among the sentences of split train. Add some.")
    return {script: learnt for script, learnt in kept.items() if len({label for label, _ in learnt}) > 1}


def label_of(lang: str) -> str:
    """The label of "azj_Latn" and its like."""
    return LABELS.get(lang.split("_", 1)[0], "other")


def read_own() -> list[Example]:
    """Our own sentences as (label, text); languages that are no label of their own are "other"."""
    known = set(LABELS.values())
    lines = OWN_SENTENCES.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    # Russian in Latin letters is no script of Russian's: "other".
    return [(label if label in known and not (label == "ru" and text.isascii()) else "other", text) for label, text in pairs]


def read_documents(path: str | Path, seed: int) -> list[Example]:
    """(label, text) of up to `DOCUMENTS` Azerbaijani texts, proven by ə, and as many Turkish, proven by `_TURKISH`.

    Both are drawn by `seed` and cut at 300 characters; the tone of a source then speaks for neither language.
    """
    texts = [row["text"][:300] for _, row in read_jsonl(path) if isinstance(row.get("text"), str)]
    proven = {
        "az": [text for text in texts if surely_azerbaijani(text)],
        "tr": [text for text in texts if not _SCHWA_Q_X.search(text) and len(_TURKISH.findall(lower(text))) > 1],
    }
    rng = random.Random(seed)
    return [(label, text) for label, found in proven.items() for text in rng.sample(found, min(DOCUMENTS, len(found)))]


def read_labelled(given: str, seed: int) -> list[Example]:
    """(label, sentence) of up to `SENTENCES` sentences from the file of "tr=FILE", drawn by `seed`; of az those ə proves."""
    label, _, path = given.partition("=")
    if label not in set(LABELS.values()) or not path:
        raise UserError(f"--labelled {given}: expected LANGUAGE=FILE with one of {', '.join(sorted(set(LABELS.values())))}.")
    texts = sorted({text for _, item in read_items(Path(path)) for _, text in strings_of(item)})
    sentences = [part.strip() for text in texts for part in _SENTENCE_END.split(text)]
    sentences = [sentence for sentence in sentences if 30 <= len(sentence) <= 300]
    if label == "az":
        sentences = list(filter(surely_azerbaijani, sentences))
    chosen = random.Random(seed).sample(sentences, min(SENTENCES, len(sentences)))
    return [(label, sentence) for sentence in chosen]


def fit(examples: list[Example], bits: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels, weights [2**bits, labels] and bias of a naive Bayes over n-grams, all languages as likely beforehand.

    Weights are log P(n-gram | language), less their mean over the languages. With a few hundred sentences a language this
    lets fewer neighbours in than a logistic regression on the same n-grams, which learns what sets 346 sentences apart.
    """
    labels = sorted({label for label, _ in examples})
    weights = np.empty((1 << bits, len(labels)), np.float32)
    for place, label in enumerate(labels):
        found = np.concatenate([hashes(units(sample(text)), bits) for own, text in examples if own == label])
        counts = np.bincount(found, minlength=1 << bits) + SMOOTHING
        weights[:, place] = SHARPNESS * np.log(counts / counts.sum())
    weights -= weights.mean(axis=1, keepdims=True)
    return labels, weights, np.zeros(len(labels), np.float32)


def judged(rows: list[dict[str, str]], models: dict[str, Model]) -> dict[str, dict[str, int]]:
    """What the detector answers: for each `lang` of these sentences, its labels and how often each."""
    answers: dict[str, Counter] = {}
    for row in rows:
        answers.setdefault(row["lang"], Counter())[identify(row["text"], models).label] += 1
    return {lang: dict(counts.most_common()) for lang, counts in sorted(answers.items())}


def train(
    sentences: str | Path, documents: list[str], out: str | Path, seed: int, labelled: Sequence[str] = ()
) -> dict[str, Any]:
    """Fit the detector, write it to `out` (.npz) and its provenance beside it (.json); returns the provenance.

    Same input and seed give the same bytes. Raises UserError for input that cannot be learnt from.
    """
    rows = read_sentences(sentences)
    texts = [text for path in documents for text in read_documents(path, seed)]
    more = [example for given in labelled for example in read_labelled(given, seed)]
    examples = examples_of(rows, texts + more, read_own(), seed)
    models = {}
    for script in tqdm(examples, desc="scripts", disable=None):
        models[script] = fit(examples[script], BITS[script])
    save(out, models)
    counts: dict[str, Counter] = {}
    for row in rows:
        counts.setdefault(row["lang"], Counter())[row["split"]] += 1
    provenance = {
        "what": "hashed 1- to 5-gram naive Bayes per script; read by corpus/detector.py",
        "command": " ".join(["python -m corpus.train_detector SENTENCES", *(["--documents FILE"] if documents else []),
                             *(["--labelled az=FILE ... tr=FILE ..."] if labelled else []), f"--seed {seed}"]),
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "sentences": {
            "what": f"labelled sentences in {len(counts)} language-scripts, of the real Azerbaijani set, not distributed",
            "sha256": sha256_file(sentences),
            "learnt": "split train in all spellings; constants set on dev; test judged at the end only, thrice: see LOG.md",
            "counts": {lang: dict(sorted(count.items())) for lang, count in sorted(counts.items())},
        },
        "documents": {
            "what": "social comments of the real Azerbaijani set, not distributed; Azerbaijani where ə proves it, Turkish "
            "where two words do, 300 characters of each at most" if documents else "none",
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
    }  # fmt: skip
    return provenance


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m corpus.train_detector", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sentences", help="labelled sentences (.jsonl or .jsonl.gz)")
    parser.add_argument("--documents", nargs="*", default=[], help="raw, mostly Azerbaijani text (.jsonl, .jsonl.gz)")
    parser.add_argument("--labelled", nargs="*", default=[], metavar="LANGUAGE=FILE", help="task files in one language each")
    parser.add_argument("--out", default=str(MODEL_FILE), help="the .npz to write; its provenance goes beside it (.json)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    provenance = train(options.sentences, options.documents, options.out, options.seed, options.labelled)
    models = load(Path(options.out))
    test = [row for row in read_sentences(options.sentences) if row["split"] == "test"]
    if test:
        provenance["test_confusion"] = judged(test, models)
    write_json(Path(options.out).with_suffix(".json"), provenance)
    print(f"{options.out}: {provenance['bytes']:,} bytes, {sum(map(len, provenance['examples'].values()))} labels")


if __name__ == "__main__":
    sys.exit(main())
