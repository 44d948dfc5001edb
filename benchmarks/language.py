"""The language detector beside py3langid: accuracy by language and script on the test split, and MB/s of both.

    python -m benchmarks.language SENTENCES [--documents FILE ...]

Each line of SENTENCES has `text`, `lang` ("azj_Latn") and `split`. "az" is the share of sentences
classified as Azerbaijani: ideally 100 for azj and 0 for all others. "right" is the share assigned to their own
language. Speed is in 10^6 bytes of UTF-8 per second of processor time on one core, one text at a time.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.files import read_jsonl, write_json
from corpus.detection.train_detector import label_of
from corpus.language import identify, second_opinion
from language.azerbaijani import LANGUAGE


def accuracy(rows: list[dict[str, str]], answer: Callable[[str], str]) -> dict[str, dict[str, float]]:
    """For each `lang`: sentences, per cent called az, per cent called by their own label."""
    answers: dict[str, list[str]] = {}
    for row in rows:
        answers.setdefault(row["lang"], []).append(answer(row["text"]))
    return {
        lang: {
            "sentences": len(given),
            "az": 100 * given.count("az") / len(given),
            "right": 100 * given.count(label_of(lang)) / len(given),
        }
        for lang, given in sorted(answers.items())
    }


def speed(texts: list[str], answer: Callable[[str], str]) -> float:
    """10^6 bytes a second of processor time, after a first call that loads the model."""
    answer("Salam, bu gün hava soyuqdur.")
    begin = time.process_time()
    for text in texts:
        answer(text)
    return sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - begin)


def second_label(text: str) -> str:
    """The label by py3langid; "none" where there is no letter."""
    found = second_opinion(text)
    return found[0] if found else "none"


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sentences", help="labelled sentences (.jsonl or .jsonl.gz)")
    parser.add_argument("--documents", nargs="*", default=[], help="raw text for the speed (.jsonl, .jsonl.gz)")
    parser.add_argument("--out", help="JSON file for the numbers")
    options = parser.parse_args()
    ways: dict[str, Callable[[str], str]] = {"ours": lambda text: identify(text, LANGUAGE).label}
    try:
        second_label("Salam")
        ways["py3langid"] = second_label
    except UserError as error:
        print(f"without py3langid: {error}", file=sys.stderr)
    try:
        rows = [row for _, row in read_jsonl(options.sentences) if row["split"] == "test"]
        files = {"sentences": [row["text"] for row in rows]}
        files |= {Path(path).name: [row["text"] for _, row in read_jsonl(path)] for path in options.documents}
    except (KeyError, UserError) as error:
        print(f"error: {error} (text, lang and split are needed a line)", file=sys.stderr)
        return 2
    found = {name: accuracy(rows, answer) for name, answer in ways.items()}
    speeds = {name: {file: speed(texts, answer) for file, texts in files.items()} for name, answer in ways.items()}
    print(f"{'language':16} {'n':>6}" + "".join(f"{name + ' az':>14}{name + ' right':>17}" for name in ways))
    for lang, ours in found["ours"].items():
        shares = "".join(f"{found[name][lang]['az']:14.2f}{found[name][lang]['right']:17.2f}" for name in ways)
        print(f"{lang:16} {ours['sentences']:6}{shares}")
    for file, texts in files.items():
        size = sum(len(text.encode()) for text in texts) / 1e6
        print(f"{file}: {size:.1f} MB, " + ", ".join(f"{name} {speeds[name][file]:.2f} MB/s" for name in ways))
    if options.out:
        write_json(options.out, {"accuracy": found, "speed": speeds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
