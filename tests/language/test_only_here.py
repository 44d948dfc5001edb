"""No room but language/ knows a language: not its name or code, nor its letters, in code or conf/. Prose may give examples."""

import ast
import re
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import pytest
import yaml

from common.launch import ROOT
from language.base import load_language, packs
from language.codes import LABELS, NAMES

LISTED = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
# benchmarks/ measures on the real Azerbaijani set by name, as tests do; corpus/detection trains the one detector of them all.
CODE = [name for name in LISTED if name.split("/")[0] not in ("language", "tests", "benchmarks") and (ROOT / name).exists()]
SCRIPTS = {"armenian", "georgian", "greek", "hebrew", "thai"}  # languages whose script has the same name
LANGUAGES = {*packs(), *map(str.lower, NAMES.values())} - SCRIPTS - {"generic", "any other language"}
CODES = {*LABELS, *NAMES, *(code for own in packs().values() for code in own)} - {"other", "und", ""}
SIGNS = set("Ġµπˍ")  # GPT-2's mark for a space in byte-level vocabularies, two signs of formulas, a stand-in for a space

# What stands in a string and is no language's own, with the reason.
ALLOWED = {
    "common/html.py": ["th"],  # the tags of a table
    "corpus/reading/wikipedia.py": ["tr"],
    "corpus/cleaning/mojibake.py": ["ÂÃÄÅ", "œžŸŒŽŠš", "â€", "Ð"],  # what UTF-8 of any language becomes in another table
    "corpus/pages/page.py": ["Ã¼ for ü"],  # an example of that
    "corpus/detection/train_detector.py": ["ru"],  # our own sentences of the one detector of all languages
    "evaluation/published.py": ["Azerbaijani language (arXiv 2407.02337)", "BERT-Base (English)"],  # a title, a model's name
    "tasks/splits.py": ["azerbaijani-tasks-1"],  # the salt of the hash that splits: another one would be another split
    "tokenization/comparison_page.py": ["Rényi"],  # whose entropy it is
}


# Names of data sets and of their files that exist in one language.
SETS = {
    # Languages against languages: what their files and folders are called.
    "conf/experiment/transfer.yaml": [
        *("azj_Latn", "tur_Latn", "crh_Latn", "tuk_Latn", "uzn_Latn", "kaz_Cyrl", "azb_Arab", "eng_Latn"),
        *("azerbaijani", "turkish", "kazakh", "uzbek", "az", "tr", "kk", "kk_nli", "kk_sts", "kk_copa", "az_copa"),
        *("mcq_university_az", "similarity_stsb_tr", "stsb_tr_train", "stsb_tr_dev", "stsb_tr_test", "qa_tquad_tr"),
    ],
    "conf/task/az_choice.yaml": ["az_choice", "azerbaijani_test.jsonl"],
    "conf/task/az_ner.yaml": ["az_ner", "ner_az"],
    "conf/task/az_news.yaml": ["az_news", "news_category_az"],
    "conf/task/az_nsp.yaml": ["az_nsp"],
    "conf/task/az_paraphrase.yaml": ["az_paraphrase", "paraphrase_az"],
    "conf/task/az_sentiment.yaml": ["az_sentiment", "sentiment_az"],
    "conf/task/az_topic.yaml": ["az_topic"],
    "conf/task/cbmcq.yaml": ["allmalab/az-multiple-choice-questions"],
    "conf/task/mrpc.yaml": ["glue-mrpc-azerbaijani"],
    "conf/task/squad.yaml": ["squad-az"],
    "conf/task/tr_qa.yaml": ["tr_qa", "qa_tquad_tr"],
    "conf/task/tr_sts.yaml": ["tr_sts", "similarity_stsb_tr", "stsb_tr"],
}


@cache
def strings(name: str) -> list[tuple[int, str]]:
    """(line, text) of every string of a module but its docstrings."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    rest = [(node.lineno, node.value) for node in found if id(node) not in prose]
    for allowed in ALLOWED.get(name, ()):
        rest = [
            (line, text.replace(allowed, "") if len(allowed) > 2 or not allowed.isascii() or text == allowed else text)
            for line, text in rest
        ]
    return rest


def test_what_is_allowed_is_there():
    """No entry of ALLOWED outlives its reason."""
    for name, parts in {**ALLOWED, **SETS}.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [part for part in parts if part not in text] == [], name


@cache
def names_in_code(name: str) -> list[tuple[int, str]]:
    """(line, identifier) of a module: names, attributes, arguments, imports."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            whole = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [(node.lineno, part) for one in whole for part in one.split(".")]
        for key in ("id", "attr", "arg", "name"):
            if isinstance(getattr(node, key, None), str) and hasattr(node, "lineno"):
                found.append((node.lineno, getattr(node, key)))
    return found


def test_no_name_of_a_language_in_code():
    pattern = re.compile("|".join(map(re.escape, sorted(LANGUAGES))), re.IGNORECASE)
    odd = [f"{name}:{line}: {text[:80]!r}" for name in CODE for line, text in strings(name) if pattern.search(text)]
    odd += [f"{name}:{line}: {word}" for name in CODE for line, word in names_in_code(name) if pattern.search(word)]
    assert not odd, "\n".join(odd)


def test_no_code_of_a_language_in_code():
    """A string that is a code (az), or ends in one (f1_az)."""
    own = {code for pack in packs() for code in packs()[pack]} - {"und"}
    odd = [f"{name}:{line}: {text!r}" for name in CODE for line, text in strings(name) if text in CODES]
    ending = re.compile(rf"[a-z0-9]_({'|'.join(sorted(own))})(?![a-z0-9])")
    odd += [f"{name}:{line}: {text[:80]!r}" for name in CODE for line, text in strings(name) if ending.search(text)]
    odd += [f"{name}:{line}: {word}" for name in CODE for line, word in names_in_code(name) if ending.search(word)]
    assert not odd, "\n".join(odd)


def test_no_letters_of_a_language_in_code():
    """Letters beyond ASCII in a string that is no docstring: an alphabet, a pattern, a suffix, a word."""

    def letters(text: str) -> str:
        return "".join(c for c in text if c > "\x7f" and unicodedata.category(c)[0] == "L" and c not in SIGNS)

    odd = [
        f"{name}:{line}: {letters(text)[:60]} in {text[:60]!r}"
        for name in CODE
        for line, text in strings(name)
        if letters(text)
    ]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize("name", [name for name in packs() if load_language(name).suffixes])
def test_no_endings_of_a_language_in_code(name):
    """No pattern that a pack gives is written a second time."""
    endings = [part for part in load_language(name).suffixes.split("|") if "[" in part]
    odd = [f"{file}:{line}" for file in CODE for line, text in strings(file) if any(part in text for part in endings)]
    assert not odd, "\n".join(odd)


def values_of(content: object, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of all keys and values of a config file but those of `language`."""
    if isinstance(content, dict):
        for name, inner in content.items():
            yield key, str(name)
            if name != "language":
                yield from values_of(inner, str(name))
    elif isinstance(content, list):
        for inner in content:
            yield from values_of(inner, key)
    elif isinstance(content, str):
        yield key, content


def named_in(text: str, allowed: Sequence[str] = ()) -> bool:
    """Whether a value of conf/ names a language or a code of one, or has letters beyond ASCII."""
    text = re.sub(r"\$\{oc\.env:[^}]*\}", "", text)  # a folder of this machine
    for part in sorted(allowed, key=len, reverse=True):
        text = text.replace(part, "")
    own = {code for pack in packs() for code in packs()[pack]} - {"und"}
    word = rf"(?<![A-Za-z0-9])({'|'.join(sorted(own))})(?![A-Za-z0-9])"
    names = "|".join(map(re.escape, sorted(LANGUAGES)))
    return bool(re.search(word, text) or re.search(names, text, re.IGNORECASE) or re.search(r"[^\W_a-zA-Z0-9]", text))


def test_no_language_in_conf():
    """A run's language is one key, `language`; data sets take their code from its pack."""
    odd = []
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        name = path.relative_to(ROOT).as_posix()
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("language"):  # a task in one language says its own words in it
            content = {key: value for key, value in content.items() if key not in ("cloze", "verbalisers")}
        odd += [f"{name}: {key}: {text}" for key, text in values_of(content) if named_in(text, SETS.get(name, ()))]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize(
    "planted",
    [
        "path: hub://HuggingFaceFW/fineweb-2/azj_Latn",
        "train: x/az/train.tsv",
        "azerbaijani: 1",
        "labels: [bəli]",
        "a: [{b: f1_tr}]",
        "name: Turkish",
    ],
)
def test_a_language_planted_in_conf_is_found(planted):
    assert [text for _, text in values_of(yaml.safe_load(planted)) if named_in(text)]
    assert not [text for _, text in values_of(yaml.safe_load("language: azerbaijani")) if named_in(text)]
