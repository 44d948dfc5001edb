"""README and docs/ are true: the map matches the tree, every command exists and accepts the overrides shown."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from common.launch import ROOT
from tests.conftest import run_script

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
PAGES = "\n".join([README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))])
SCRIPTS = {"prepare.py", "train.py", "finetune.py", "benchmark.py"}


def commands() -> list[list[str]]:
    """Every line of every fenced block of commands, as words; blocks of another language (```diff) are skipped."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES, re.M | re.S)
    blocks = [block.replace("\\\n", " ") for language, block in found if language in ("", "sh")]
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip() and line[0] != "#"]


def words_for_hydra(words: list[str]) -> tuple[str, list[str]] | None:
    """(script, overrides) of a command that starts one of the four scripts."""
    script = next((word for word in words if word in SCRIPTS), None)
    return (script, [word for word in words[words.index(script) + 1 :] if word != "-m"]) if script else None


def test_map_is_the_tree():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    code = {name for name in listed if not name.startswith("tests/") and not name.endswith("__init__.py")}
    shown = set(re.findall(r"^\| `([\w/]+\.py)` \|", MAP, re.M))
    assert shown == code, f"missing in docs/map.md: {sorted(code - shown)}; no longer there: {sorted(shown - code)}"


def test_names_both_commands():
    assert {("make", "demo"), ("make", "test")} <= {tuple(words) for words in commands()}
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert all(words[1] in targets for words in commands() if words[0] == "make")


@pytest.mark.parametrize("words", [words for words in commands() if words_for_hydra(words)], ids=" ".join)
def test_script_takes_these_words(words):
    """Each override exists: the config composes (with a sweep's first value of each)."""
    script, overrides = words_for_hydra(words)
    overrides = [re.sub(r"=([^\[{\"]*?),.*", r"=\1", override) for override in overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(script.removesuffix(".py"), overrides, return_hydra_config=True)
    assert config.name


HYDRA = {"training.sentences", "training.minimal_pairs", "training.robustness", "builders.build"}
HELP = """
import contextlib, io, json, runpy, sys
shown = {}
for name in sys.argv[1:]:
    sys.argv, said, code = [name, "--help"], io.StringIO(), None
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    shown[name] = [code, said.getvalue()]
print(json.dumps(shown))
"""


def test_modules_show_their_help():
    """All in one process, since each by itself imports torch for its few lines; those that Hydra starts by themselves."""
    modules = {words[2] for words in commands() if words[:2] == ["python", "-m"]}
    result = run_script("-c", HELP, *sorted(modules - HYDRA))
    assert result.returncode == 0, result.stderr
    for module, (code, said) in json.loads(result.stdout.splitlines()[-1]).items():
        assert code in (0, None) and f"python -m {module}" in said, (module, code, said)
    for module in HYDRA:
        result = run_script("-m", module, "--help")
        assert result.returncode == 0 and module in result.stdout, result.stderr


def test_filters_work_as_shown():
    for module in ("corpus.clean", "corpus.language"):
        assert f"python -m {module} --language azerbaijani < lines" in PAGES
        words = [sys.executable, "-m", module, "--language", "azerbaijani"]
        result = subprocess.run(words, cwd=ROOT, input="Bakı gözəl şəhərdir.\n", capture_output=True, text=True, check=True)
        assert "Bakı" in result.stdout or '"az"' in result.stdout
