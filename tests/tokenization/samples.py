"""Text, settings and a corpus folder for the tests of tokenizers, without any data set."""

import gzip
import json
import random
from pathlib import Path

from common.settings import typed
from tokenization.settings import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
KINDS = [f"{kind}-{case}" for kind in ("wordpiece", "unigram", "bpe") for case in ("cased", "uncased")] + ["phrases-uncased"]
# Words that an accent-stripping or English-casing normaliser would merge; all 40 must stay distinct.
_PAIRS = """ön/on üç/uc ac/aç qız/qiz öz/oz şən/sən sağ/sag qar/qır dön/don köç/koc göl/gol tük/tuk söz/soz iş/is
çay/cay aş/as baş/bas daş/das qaş/qas yaş/yas ağ/ag dağ/dag bağ/bag yağ/yag ılıq/iliq qızıl/qizil sıx/six
ır/ir tır/tir sır/sir kül/kul gün/gun dün/dun süd/sud üz/uz əl/el ər/er ət/et dəmir/demir mən/men"""
PAIRS = _PAIRS.split()


def write_corpus(folder: Path, texts: list[str], weight: float = 1.0) -> Path:
    """A built corpus by hand, of one source."""
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "documents" / "demo.jsonl.gz", "wt", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": str(number), "source": "demo", "text": text}, ensure_ascii=False) + "\n")
    sources = {"demo": {"characters": sum(map(len, texts)), "weight": weight}}
    (folder / "report.json").write_text(json.dumps({"language": "azerbaijani", "sources": sources}))
    (folder / "manifest.json").write_text(json.dumps({"digest": f"{len(texts)} {hash(tuple(texts))}"}))
    return folder


def sentences() -> list[str]:
    """Inflected words of the project's own list in random sentences: text without a data set."""
    rows = (ROOT / "language" / "azerbaijani_morphemes.tsv").read_text(encoding="utf-8").splitlines()[1:]
    words = [row.split("\t")[0] for row in rows] + [word for pair in PAIRS for word in pair.split("/")]
    draw = random.Random(5)
    texts = []
    for _ in range(1500):
        sentence = " ".join(draw.choices(words, k=9))
        ends = [".", "!", ", (2024-cü il).", "?\nİkinci sətir: «Iğdır»", " və ya heç bir söz_heç bir."]
        texts.append(sentence[0].upper() + sentence[1:] + draw.choice(ends))
    return texts


def options(name: str, **more: object) -> Tokenizer:
    kind, case = name.split("-")
    if kind == "phrases":
        kind, more = "wordpiece", {"phrases": 40, **more}
    usual = {"vocab_size": 900, "lowercase": case == "uncased", "alphabet_size": 300, "prune_from": 1.2}
    return typed(Tokenizer, {"kind": kind, **usual, **more}, "tokenizer")


HARD = [
    "",
    " ",
    "   ",
    " bir",
    "iki ",
    "a   b",
    "\n\n a\n b",
    "İSTANBUL ILIQ QIZIL İlham Iğdır ƏLİ ŞƏKİ",
    "v ә ya şәhəri",
    "Шәки оса",
    "a\u200bb\u00adc",
    "e\u0301 i\u0307 I\u0307",
    "▁x ▁",
    "[MASK] [CLS]",
    "<0x41> <s>",
    "x" * 300,
    "ha" * 40,
    "çoooox ......",
    "1\t2\r\n3\u00a04",
    "①②⁵½ ﬁ",
    "🇦🇿 👨‍👩‍👧 👍🏽",
    "\U0001fadf",
    "مرحبا",
    "a\u0323\u0307",
    "ß ẞ Σς",
    "“a” ‘b’ — ‒",
]
