import html.parser
import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from common.files import ROOT, read_json
from common.html import SORT
from corpus.mixture import source_rates
from corpus.pages.page import SETTINGS, html_page, marked
from corpus.stages.annotate import Samples, change, merge_samples
from tests.azerbaijani import build_corpus
from tests.corpus.test_build import sentences, snapshot, write

EVIL = '<script>alert(1)</script> & "quoted" <b>qalın</b> | bir,'
OWN = {
    "weights": {"small": 50, "big": 2},
    "max_bad_fraction": 0.5,
    "licence": "CC <0>",
    "mixture": {"temperature": 1.0, "max_repeats": 4},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    texts = list(sentences(60, 1))
    texts += [f"{text}  \u200b{EVIL}" for text in sentences(30, 2)]
    texts += ["Москва является столицей России и крупнейшим городом <i>страны</i>", *texts[:3], f"qısa & <{7}>"[:8]]
    texts.append("Əlaqə  üçün ali@example.az ünvanına yazın, zəhmət olmasa, cavab gözləyirik.")
    write(folder / "in" / "big.jsonl", texts)
    write(folder / "in" / "small.jsonl", sentences(3, 4))
    with open(folder / "in" / "small.jsonl", "ab") as file:
        file.write(b'{"text": 5, "evil": "<img src=x>"}\n')
    settings = {"path": str(folder / "in"), **OWN}
    report = build_corpus(settings, folder / "out")
    return folder, report


class Checker(html.parser.HTMLParser):
    """Every element that opens is closed, and nothing is loaded from elsewhere."""

    VOID = {"meta", "br", "img", "rect"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not {"src", "onclick", "onload"} & dict(attrs).keys()
        assert all((value or "").startswith("#") for name, value in attrs if name == "href")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_self_contained_and_escaped(built):
    folder, _ = built
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert not {"link", "img", "iframe", "b"} & set(checker.seen)
    assert checker.seen.count("script") == 1 and f"<script>{SORT}</script>" in page  # ours, for a click on a column's head
    assert "&lt;img src=x&gt;" in page and "CC &lt;0&gt;" in page
    assert "prefers-color-scheme: dark" in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(drawing)
    assert page.count("<svg") == 3


def test_the_page_shows_each_rule_and_each_reason_with_examples(built):
    folder, report = built
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    for rule in report["total"]["rules"]:
        assert f"<summary>{rule.replace('_', ' ')}" in page
    for reason, count in report["total"]["removed"].items():
        assert f"{reason.replace('_', ' ')}: {min(count, 20)} of {count}" in page
    assert "&lt;EMAIL&gt;" in page and "ali@example.az" not in page
    assert "Москва" in page


def test_the_card_names_sources_licences_and_limits(built):
    folder, report = built
    card = (folder / "out" / "card.md").read_text(encoding="utf-8")
    for name in report["sources"]:
        assert f"| {name} |" in card
    for word in ("CC <0>", "Known limits", "could not be read", "No task files were named", "at most 4"):
        assert word in card
    assert card.count("\n## ") == 5


def test_epochs_are_capped_and_the_rest_goes_to_other_sources(built):
    folder, report = built
    small, big = report["sources"]["small"], report["sources"]["big"]
    assert small["epochs"] == 4
    budget = small["words"] * 50 + big["words"] * 2
    assert big["epochs"] == pytest.approx(min(4, (budget - 4 * small["words"]) / big["words"]), abs=1e-3)
    assert small["share"] + big["share"] == pytest.approx(1, abs=1e-3)
    before = snapshot(folder / "out")
    settings = {"path": str(folder / "in"), **OWN}
    again = build_corpus(settings | {"mixture": {"temperature": 0.5, "max_repeats": None}}, folder / "out")
    assert again["sources"]["small"]["epochs"] > 4
    after = snapshot(folder / "out")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"report.json", "report.html", "card.md", "manifest.json"}  # only the sampler uses it: no document moves
    digests = {read_json(folder / "out" / "manifest.json")["digest"]}
    build_corpus(settings, folder / "out")
    assert {read_json(folder / "out" / "manifest.json")["digest"]} == digests  # so the tokenizer is not retrained
    assert snapshot(folder / "out") == before


def test_water_filling_with_every_source_capped():
    rates = source_rates(np.array([10, 20]), np.array([9.0, 9.0]), 1.0, 4)
    assert rates.tolist() == [4, 4]


def test_samples_do_not_depend_on_the_order():
    offers = [("rule", others, f"s:f:{line}") for line in range(200) for others in (1, 2)]

    def picked(order):
        samples = Samples(5)
        for name, others, place in order:
            samples.offer(name, others, place, lambda: {"text": "x"})
        return samples.chosen()

    whole = picked(offers)
    assert picked(offers[::-1]) == whole
    assert len(whole["rule"]) == 5 and all(entry["rank"][0] == 1 for entry in whole["rule"])
    assert merge_samples([picked(offers[:150]), picked(offers[150:])], 5) == whole


def test_a_change_is_shown_in_its_context():
    before = "a" * 500 + "X" + "b" * 500
    shown = change(before, before.replace("X", "YY"))
    assert "X" in shown["before"] and "YY" in shown["after"] and len(shown["before"]) <= 180
    assert change("same", "same") == {"before": "same", "after": "same"}


def test_a_change_is_marked_character_by_character():
    before, after = marked("a  b É™ <x>", "a b ə <x>")
    assert before == "a<del>␣</del> b <del>É™</del> &lt;x&gt;"
    assert after == "a b <ins>ə</ins> &lt;x&gt;"
    assert marked("q\u200bz", "qz") == ("q<del>U+200B</del>z", "qz")
    for one, other in itertools.pairwise(sentences(5, 3)):
        sides = [re.sub("</?(?:ins|del)>", "", side) for side in marked(one, other)]
        assert [side.replace("␣", " ") for side in sides] == [html.escape(one), html.escape(other)]


def test_the_page_says_where_it_comes_from_and_a_second_process_makes_the_same_bytes(built):
    _, report = built
    origin = {"date": "2026-11-29", "commit": "0123456789ab", "command": "python prepare.py name=<x>", "machine": "here"}
    page = html_page(report, {}, origin)
    head = page[: page.index("<nav>")]
    assert all(
        word in head for word in ("2026-11-29", "0123456789ab", "name=&lt;x&gt;", "here", f"{report['total']['in']} records")
    )
    code = "import json, sys\nfrom corpus.pages.page import html_page\nsys.stdout.write(html_page(*json.load(sys.stdin)))"
    again = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([report, {}, origin]),
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    assert again.stdout == page


def test_no_raw_key_of_a_setting_is_shown(built):
    _, report = built
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", html_page(report, {}), flags=re.DOTALL))
    assert set(report["settings"]) <= set(SETTINGS)
    for key in (*report["settings"], *report["total"]["removed"], *report["total"]["rules"]):
        assert "_" not in key or not re.search(rf"(?<![.\w]){key}", text), key
