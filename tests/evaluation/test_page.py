"""The page in a real browser: plots are drawn, filters follow the form's address, and all is there without a script."""

import html
import re
import shutil
import subprocess

import pytest

from common.files import write_jsonl
from evaluation.report import build_report
from tests.azerbaijani import build_corpus
from tests.evaluation.synthetic import write_benchmark
from training.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZES = {"azsci": 90, "wikiann": 60, "ldquad": 60, "cbmcq": 80}
EVIL = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_benchmark(folder / "bench", {"strong": 3.0, f"we&k {EVIL}".replace("/", "|"): 1.5}, 2, SIZES)
    write_jsonl(folder / "pretrain" / "metrics.jsonl", [{"step": s, "loss": 9 - s / 50} for s in range(0, 200, 10)])
    build_report([folder / "bench"], folder, folder / "pretrain")
    return folder / "report.html"


def _examples(text):
    """(visible, hidden) rows of the error browser in a page's source."""
    section = text[text.index('<section id="browser">') :]
    rows = re.findall(r"<tr data-type=[^>]*>", section)
    hidden = [row for row in rows if re.search(r"\shidden(=|>|\s)", row)]
    return len(rows) - len(hidden), len(hidden)


def test_page_is_whole_without_script_and_loads_nothing(page):
    text = page.read_text()
    visible, hidden = _examples(text)
    assert visible > 100 and hidden == 0
    assert '<form id="filters" hidden>' in text and "<noscript" not in text
    bare = re.sub(r"<svg.*?</svg>", "", text, flags=re.S).replace(html.escape(EVIL), "")
    assert not re.search(r'(?:src|href)\s*=\s*"?(?!["#])', bare)
    assert EVIL not in text and html.escape(EVIL) in text
    for part in (
        "Parts, with 95 % intervals",
        "Calibration",
        "Reliability",
        "Where each model errs",
        "Differences from the best",
        "boundary: by a suffix only",
    ):
        assert part in text
    assert text.count("<svg") == text.count("</svg>") >= 10


def _kept(text):
    """The rows of the error browser that are shown."""
    section = text[text.index('<section id="browser">') :]
    return [row for row in re.findall(r"<tr data-type=[^>]*>", section) if not re.search(r"\shidden(=|>|\s)", row)]


def _dom(page, query, folder, driver="", width=800):
    """The page's source after its script, and then the test's `driver`, has run in headless Chromium."""
    if driver:
        text = page.read_text().replace("</body>", f"<script>{driver}</script></body>")
        page = folder / "driven.html"
        page.write_text(text)
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--virtual-time-budget=5000"]
    words += [f"--window-size={width},900"]
    done = subprocess.run(
        [*words, "--dump-dom", f"file://{page}{query}"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0 and "</html>" in done.stdout, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
def test_plots_and_filters_in_chromium(page, tmp_path):
    whole = _dom(page, "", tmp_path)
    everything, hidden = _examples(whole)
    assert hidden == 0 and f'id="shown">{everything} examples<' in whole
    assert '<form id="filters">' in whole  # the script has made it visible
    assert whole.count("<svg") >= 10 and whole.count("<path") > 200
    assert "<title>Results</title>" in whole  # nothing from the data was executed
    narrow = _dom(page, "#browser?task=wikiann&model=strong&type=spurious", tmp_path)
    shown, hidden = _examples(narrow)
    assert 0 < shown <= 20 and shown + hidden == everything
    section = narrow[narrow.index('<section id="browser">') :]
    assert all('data-type="spurious"' in row for row in _kept(narrow))
    opened = re.findall(r'<details data-task="([^"]*)" data-model="([^"]*)"[^>]*\sopen', section)
    assert opened == [("wikiann", "strong")]
    assert _examples(_dom(page, "#browser?text=no+such+text", tmp_path))[0] == 0


# What a user does: choose in the form, type into it; and the drawn size of every plot that is not folded away.
DRIVER = """
for (const box of document.querySelectorAll("section:not(#browser) details")) box.open = true;
const form = document.getElementById("filters");
form.elements.model.value = "strong";
form.elements.right.value = [...form.elements.right.options].map((o) => o.value).find((name) => name.startsWith("we&k"));
form.elements.text.value = "İŞIQ";
form.elements.text.dispatchEvent(new Event("input", {bubbles: true}));
const sizes = [...document.querySelectorAll("svg")].map((plot) => plot.getBoundingClientRect());
document.body.dataset.plots = sizes.length;
document.body.dataset.drawn = sizes.filter((size) => size.width > 150 && size.height > 60).length;
document.body.dataset.wide = document.documentElement.scrollWidth <= window.innerWidth;
document.body.dataset.address = location.hash;
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
def test_the_form_filters_and_the_plots_have_their_size(page, tmp_path):
    driven = _dom(page, "", tmp_path, DRIVER)
    kept = _kept(driven)
    assert 0 < len(kept) < len(_kept(page.read_text())) and f'id="shown">{len(kept)} examples<' in driven
    assert all(re.search(r'data-right="we&amp;k [^"]*"', row) for row in kept)
    found = {name: re.search(f'<body[^>]* data-{name}="([^"]*)"', driven)[1] for name in ("plots", "drawn", "wide", "address")}
    assert found["plots"] == found["drawn"] and int(found["plots"]) >= 10
    assert found["wide"] == "true"  # the page never scrolls sideways; wide tables scroll by themselves
    assert found["address"].startswith("#browser?model=strong&amp;right=we%26k+") and found["address"].endswith(
        "text=%C4%B0%C5%9EIQ"
    )


# Nothing makes the page scroll sideways, no cell is cut: what is wider scrolls in a box of its own. A click sorts.
FITS = """
document.body.dataset.width = window.innerWidth;
document.body.dataset.wide = document.documentElement.scrollWidth <= window.innerWidth;
const boxes = [...document.querySelectorAll(".wide")];
document.body.dataset.boxes = boxes.every((box) => box.getBoundingClientRect().right <= window.innerWidth);
const table = document.querySelector("table.sortable"), head = table.tHead.rows[0].cells[1];
head.click();
head.click();
document.body.dataset.sorted = head.getAttribute("aria-sort");
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [1400, 500])  # 500: the narrowest window that Chromium makes
def test_all_pages_fit_a_screen_and_a_phone_and_sort(page, tmp_path, width):
    held = {"loss": 5.0, "accuracy": 0.2, "bits_per_character": 3.1}
    write_jsonl(tmp_path / "run" / "metrics.jsonl", [{"step": 10, "loss": 8.0}, {"step": 90, "heldout": held}])
    write_page([tmp_path / "run"], tmp_path / "training.html")
    texts = {f"a source with a rather long name {n}": f"Bakı Azərbaycanın paytaxtıdır və {n} küçəsi var." for n in range(3)}
    for name, text in texts.items():
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", [{"text": f"{text} {'uzunsöz' * 30} {i}"} for i in range(4)])
    build_corpus({"path": str(tmp_path / "in"), "near_duplicates": None, "language_check": False}, tmp_path / "corpus")
    for made in (page, tmp_path / "training.html", tmp_path / "corpus" / "report.html"):
        driven = _dom(made, "", tmp_path, FITS, width)
        found = dict(re.findall(r' data-(width|wide|boxes|sorted)="([^"]*)"', re.search(r"<body[^>]*>", driven)[0]))
        assert found == {"width": str(width), "wide": "true", "boxes": "true", "sorted": "ascending"}, made
