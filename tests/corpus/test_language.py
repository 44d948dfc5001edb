import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from common.launch import ROOT
from corpus.language import identify

AZ_DATA = Path(os.environ.get("AZ_DATA", Path(__file__).resolve().parents[2] / "../shared/az"))


@pytest.mark.parametrize(
    "text",
    [
        "Şəki qədim şəhərdir və onun tarixi çox maraqlıdır.",
        "QANUNUN MƏQSƏDİ VƏ ƏSAS ANLAYIŞLAR",
        "cox gozel, her kese meslehet gorurem",
        "men bilmirem niye islemir bu proqram",
        "Mohtesem oyundur",
        "super 👍",
        "Əla!",
        "Азәрбајҹан халгы өз тәләбләрини билдирди, ҝөзәл шәһәр.",
        "Docker image hazırlamaq üçün FROM, RUN və COPY əmrlərini yazırıq.",
    ],
)
def test_azerbaijani_in_every_spelling_is_kept(text):
    assert identify(text).label == "az"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Москва является столицей России и крупнейшим городом страны.", "Cyrillic"),
        ("The quick brown fox jumps over the lazy dog and runs away.", "Latin"),
        ("Bu uygulama çok güzel ama bazen çalışmıyor, lütfen düzeltin.", "Latin"),
        ("Türkiye'nin başkenti Ankara, en kalabalık şehri ise İstanbul'dur.", "Latin"),
        ("این یک جمله به زبان فارسی است و نه ترکی.", "Arabic"),
        ("Қазақстан – Орталық Азиядағы мемлекет, астанасы Астана қаласы.", "Cyrillic"),
        ("Ո՞վ է գրել այս գիրքը և երբ է այն լույս տեսել։", "Armenian"),
    ],
)
def test_other_languages_are_told_apart(text, script):
    verdict = identify(text)
    assert (verdict.label, verdict.script) == ("other", script)


def test_no_letters_is_no_evidence():
    assert identify("12.05.2020 👍👍") == ("az", "none", 0.5)


def test_the_command_prints_one_object_a_line():
    text = "Salam, necəsən?\n\xff\nМосква большой город\n".encode()
    result = subprocess.run([sys.executable, "-m", "corpus.language"], cwd=ROOT, input=text, capture_output=True, check=True)
    printed = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert [sorted(one) for one in printed] == [["label", "score", "script"]] * 3
    assert [one["label"] for one in printed][::2] == ["az", "other"]


@pytest.mark.skipif(not (AZ_DATA / "langid").exists(), reason=f"needs the labelled sentences in {AZ_DATA}")
def test_recall_and_false_accepts_on_labelled_sentences():
    seen, accepted = Counter(), Counter()
    with gzip.open(AZ_DATA / "langid" / "sentences.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record["split"] == "test":
                seen[record["lang"]] += 1
                accepted[record["lang"]] += identify(record["text"]).label == "az"
    share = {language: accepted[language] / seen[language] for language in seen}
    assert share["azj_Latn"] >= 0.995
    assert share["azj_Latn_ascii"] >= 0.95
    assert share["azj_Cyrl"] >= 0.98
    assert share["tur_Latn"] <= 0.10
    assert share["eng_Latn"] <= 0.04
    for language in ("rus_Cyrl", "pes_Arab", "azb_Arab", "kaz_Cyrl", "hye_Armn", "kat_Geor"):
        assert share[language] <= 0.005, language
