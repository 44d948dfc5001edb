"""What a case must print, must not print and must leave behind to be what its expected.txt (or run.sh) asks for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.files import read_jsonl

STARTED = r"Traceback \(most recent call last\)"


class Check(NamedTuple):
    """How the output of a case is judged. Every pattern of `shown` is found in it and none of `never`."""

    shown: tuple[str, ...] = ()
    never: tuple[str, ...] = (STARTED,)
    after: str = ""  # shell commands that run after the case's own, their output joined to its
    before: str = ""  # and before
    judge: Callable[[str, Path], str] | None = None  # (output, checkout) -> what is wrong, "" for nothing
    codes: tuple[int, ...] = (0, 2)


def verdict(check: Check, output: str, code: int | str, checkout: Path) -> str:
    """ "" if the case is as expected, else why not."""
    if code not in check.codes:
        return f"exit code {code}"
    for pattern in check.shown:
        if not re.search(pattern, output, re.MULTILINE):
            return f"not printed: {pattern}"
    for pattern in check.never:
        if found := re.search(pattern, output, re.MULTILINE):
            return f"printed: {found[0][:60]}"
    return check.judge(output, checkout) if check.judge else ""


# ---------------------------------------------------------------- judges


def _linear(output: str, checkout: Path) -> str:
    """Lines "[name] length seconds" of lengths that double: the longest takes at most three times what the one before did."""
    found: dict[str, list[float]] = {}
    for name, seconds in re.findall(r"^(.*?) ?\d+ (\d+\.\d+(?:e-\d+)?)$", output, re.MULTILINE):
        found.setdefault(name, []).append(float(seconds))
    if not found:
        return "no times printed"
    slow = [name for name, times in found.items() if times[-1] > 1 and times[-1] > 3 * times[-2]]
    return f"time grows with the square: {slow[0]}" if slow else ""


def _answers_without_blanks(output: str, checkout: Path) -> str:
    files = sorted(Path(found) for found in re.findall(r"; (\S+seed-0)$", output, re.MULTILINE))
    answers = [row["pred"] for file in files for _, row in read_jsonl(file / "predictions-test.jsonl")]
    blank = [answer for answer in answers if answer != answer.strip()]
    return f"{len(blank)} of {len(answers)} answers begin or end with a blank" if blank or not answers else ""


def _whole_folders(output: str, checkout: Path) -> str:
    """Of two fine-tuning runs at once: every seed folder that is there has all of its files."""
    folders = sorted((checkout / "runs" / "tw" / "ft").glob("*/topic/seed-*"))
    names = ("config.yaml", "metrics.jsonl", "environment.json", "predictions-dev.jsonl", "predictions-test.jsonl")
    lacking = [f"{folder.name}: no {name}" for folder in folders for name in names if not (folder / name).exists()]
    return lacking[0] if lacking else "" if len(folders) == 2 else f"{len(folders)} folders of seeds"


def _one_run(output: str, checkout: Path) -> str:
    """Of two pre-training runs at once: one trained, and no checkpoint was lost."""
    if "could not be written" in output:
        return "a checkpoint could not be written"
    trained = len(re.findall(r"^training: 40 steps", output, re.MULTILINE))
    return "" if trained == 1 else f"{trained} runs trained"


def _within(most: int) -> Callable[[str, Path], str]:
    def judge(output: str, checkout: Path) -> str:
        found = re.search(r"(\d+) MB", output)
        return "" if found and int(found[1]) <= most else f"{found[1] if found else 'no'} MB"

    return judge


def _two_sweeps(output: str, checkout: Path) -> str:
    folders = list((checkout / "runs" / "swx" / "sweep").glob("*/checkpoint"))
    return "" if len(folders) == 2 else f"{len(folders)} run folders with a checkpoint"


TEXTS = "import sys; from common.files import read_jsonl; print(*(row for path in sys.argv[1:] for row in read_jsonl(path)))"
PREPARE = "$PY prepare.py experiment=local corpus.path=$CASES/15-tiny-corpus/corpus name=tiny tokenizer.vocab_size="
FINETUNE = (
    "$PY finetune.py name=demo checkpoint=runs/demo/pretrain recipe.epochs=1 threads=1 seeds=[0] task.kind=classification"
)
PREDICT = "$PY -m model.predict /tmp/case-11/*/*/seed-0/checkpoint $C/train.csv --out /tmp/case-11/p.jsonl"
CHECKS = {
    # ---- reports
    "01-tagging-word-starts": Check(
        (r"ours \[2, 618, 557, 1784, 2872, 3570, 3\]", r"want \[2, 618, 557, 1784, 2872, 3570, 3\]")
    ),
    "02-choice-own-labels": Check(
        (
            r"\A12 examples, 0 skipped(.|\n)*^12 examples, 0 skipped",
            r'"Bakı", "Tehran", "Lima", "Ankara"\], "label": 0',
            r'"Tokio", "Ankara", "Oslo", .*"label": 1',
            "counted from 1",
        )
    ),
    "03-numpy-repr-in-csv": Check((r"\A60 examples, 0 skipped", r'"words": \["Rəşad", "Həsənova", "17", "may"')),
    "04-wikiann-raw-prefix": Check(("every word begins with 'az:'", '"words": ["Rəşad"'.replace("[", r"\["))),
    "05-conll-index-column": Check(
        (r'"words": \["Rəşad", "Həsənova"', '"B-PER", "I-PER"', "numbers the words", "column 3 of 4")
    ),
    "06-conll-nbsp-in-word": Check(("17\u00a0000", r"\A60 examples, 0 skipped", '"Bakı", "\u00a0", "şəhəri"')),
    "07-qa-utf16-offsets": Check(("UTF-16", r"\A12 examples, 0 skipped"), judge=None),
    "09-test-labels-minus-one": Check(
        (r"test\.csv: the test set has labels of -1 alone", "none of 10 records is usable"), codes=(2,)
    ),
    "10-csv-null-words": Check((r"\A60 examples, 0 skipped", '"text": "null", "label": "NA"'), codes=(0,)),
    "11-csv-unbalanced-quote": Check(
        (r"\A38 examples, 2 skipped", "^39 examples, 1 skipped", r"(lines? 12|40 predictions)"),
        after=f"rm -rf /tmp/case-11; {FINETUNE} out=/tmp/case-11 task.train=$C/train.csv; {PREDICT}",
    ),
    "12-json-lines-named-json": Check(("dev macro_f1",), codes=(0,)),
    "13-git-lfs-pointers": Check(
        (r"model\.safetensors: a git-lfs pointer", r"train\.jsonl: a git-lfs pointer", r"laws\.txt, line 1: git_lfs_pointer")
    ),
    "14-tag-schemes": Check((r"(60 examples, 0 skipped(.|\n)*){5}",), ("[1-9][0-9]* skipped;", STARTED), codes=(0,)),
    "15-tiny-corpus": Check(("training: 3 steps",), codes=(0,)),
    "16-hydra-special-characters": Check((r"(shards: (.|\n)*){2}",), codes=(0,)),
    "17-own-column-names": Check(
        (r"task\.columns\.text=COLUMN", "dev macro_f1(.|\n)*dev macro_f1"),
        after=f"{FINETUNE} out=/tmp/case-out task.train=$C/train.csv task.columns.text=başlıq task.columns.label=mövzu",
    ),
    "18-wikipedia-inline-templates": Check(
        ("Əhalisi 12500 nəfərdir", "Orta temperatur -10 °C-dir. Şəhər 5 min il əvvəl salınıb", "Sahəsi 93 km² təşkil")
    ),
    "19-odd-characters-in-training-text": Check(
        ("unigram done", "bpe done", "wordpiece done"),
        (STARTED, "special", r"HF differs on '(?!Bu \[MASK\])", "offsets differ"),
    ),
    "20-qa-answer-with-leading-space": Check(judge=_answers_without_blanks, codes=(0,)),
    "21-parquet-odd-columns": Check(("shards: ", "dev f1"), codes=(0,)),
    "22-qa-unicode-and-null": Check((r"impossible-str \[\]", r"impossible \[\]"), (STARTED, r"impossible-str \[\(")),
    "23-html-small-tags": Check(
        (
            "Xəzər Universiteti tələbələr üçün",
            "hər gün axşam saatlarına qədər işləyəcək",
            "İkinci mərtəbədə elmi jurnallar",
            "Kitab insanın ən yaxın dostudur",
            "Kitab insanın en yaxın dostudur",
        ),
        after=f"$PY -c '{TEXTS}' runs/web/corpus/*/*.gz runs/web/corpus/removed.jsonl.gz",
    ),
    "24-ud-and-comments": Check((r'"words": \["Bu", "kitabı", "yazan", "kimdir", "\?", "O"\]',)),
    "25-folder-with-other-files": Check(
        (
            r"2 files are not read, since their names indicate no split: fizika\.\w+, kimya",
            "not read .*LICENSE, README.md, köhnə, news.docx",
        )
    ),
    "26-sweep-over-experiment": Check(judge=_two_sweeps, codes=(0,)),
    "27-wandb-offline-resume": Check((r"steps \[0, 1, 2, 3\] \.\.\. \[58, 59, 60\]",)),
    "28-vocab-size-in-message": Check(
        (r"191 tokens(.|\n)*191 tokens(.|\n)*191 tokens(.|\n)*tokenizer: wordpiece, 191 tokens",), after=f"{PREPARE}191"
    ),
    "30-mask-in-exported-unigram": Check(judge=lambda output, checkout: _same_pairs(output)),
    "31-roberta-positions": Check(
        ("rows have at most 128 tokens",),
        before="rm -rf /tmp/hf_roberta; $PY $CASES/01-tagging-word-starts/make_bytebpe.py /tmp/hf_roberta roberta",
    ),
    "33-lora-head": Check(("^same$",), codes=(0,)),
    # ---- hostile
    "01-two-finetunes-at-once": Check(judge=_whole_folders),
    "02-two-trains-at-once": Check(judge=_one_run),
    "03-zwj-hangs-prepare": Check(("corpus: ",)),
    "04-hyphen-long-word": Check(judge=_linear, codes=(0,)),
    "05-wiki-open-bracket": Check(judge=_linear, codes=(0,)),
    "06-combining-marks": Check(judge=_linear, codes=(0,)),
    "07-wiki-entity-5000-digits": Check(("corpus: ",)),
    "08-wiki-bz2-bomb": Check(("too_long",), (STARTED, "MemoryError")),
    "09-parquet-bomb": Check(judge=_within(800)),
    "10-tokenizer-normaliser-quadratic": Check(judge=_linear, codes=(0,)),
    "11-full-disk-kills-run": Check(("training: 10 steps", "could not be written"), codes=(0,)),
    "12-symlinked-corpus-folder": Check(
        ("LINK STANDS", "corpus: written to runs/s/corpus(.|\n)*corpus: written to runs/s/corpus"),
        (STARTED, "Make room"),
        after="[ -L runs/s/corpus ] && [ -s runs/s/corpus/report.html ] && echo LINK STANDS",
    ),
    "13-read-only-shared-corpus": Check(("shards: already complete", "training: 2 steps"), codes=(0,)),
}


def _same_pairs(output: str) -> str:
    """Lines "ours [...]" and "HF [...]": the same pieces, and the same scores."""
    ours, theirs = re.findall(r"^ *ours (.*)", output, re.MULTILINE), re.findall(r"^ *HF +(.*)", output, re.MULTILINE)
    if len(ours) != 2 or len(theirs) != 2 or ours[0] != theirs[0]:
        return "other pieces"
    scores = [re.findall(r"0\.\d+", text[1]) for text in (ours, theirs)]
    return "" if scores[0] == scores[1] else "other scores"
