"""Config keys, files, modules, headings and packages named in messages, docstrings and config comments exist."""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from common.launch import ROOT

LIST = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
TRACKED = subprocess.run(LIST, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
CODE = sorted(name for name in TRACKED if name.endswith(".py") and not name.startswith("tests/") and (ROOT / name).exists())
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in CODE}
FOLDERS = {name.split("/")[0] for name in TRACKED if "/" in name}
SCRIPTS = {name for name in CODE if "/" not in name}
PATH = re.compile(r"(?<![\w./{-])(?:[\w.-]+/)*[\w.-]+\.(?:py|md|yaml|txt|toml)\b")
KEY = re.compile(r"(?<![\w./-])([a-z_]+(?:\.[a-z_]\w*)+)(?![\w/(]|\.\w)")
HEADING = re.compile(r"((?:docs/)?[A-Za-z_]+\.md|README), \"?([A-Z][\w -]+)")
OWN_NAMES = ("task.columns.", "corpus.weights.", "corpus.quality.")  # names below these keys are the user's
ENDINGS = {"py", "md", "yaml", "txt", "json", "jsonl", "csv", "tsv", "tex", "gz", "npz", "toml", "html", "log", "bin"}
ENDINGS |= {"model", "onnx", "safetensors"}
BRINGS = {  # import name of a package, and its purpose
    "scikit_learn": ("sklearn",),
    "hydra_core": ("hydra", "omegaconf"),
    "pyyaml": ("yaml",),
    "trafilatura": ("lxml",),
    "dask": ("distributed",),
    "nvidia_ml_py": ("pynvml",),
    "python_docx": ("docx",),
}


@cache
def sentences(name: str) -> list[tuple[int, str]]:
    """(line, text) of the strings of a module that contain a space: messages and docstrings, not tables of names."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    values = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [(node.lineno, node.value) for node in values if " " in node.value]


@cache
def texts() -> list[tuple[str, str]]:
    """(place, text) of all sentences of the code and of all comments of the config."""
    found = [(f"{name}:{line}", text) for name in CODE for line, text in sentences(name)]
    for name in TRACKED:
        if name.startswith("conf/") and name.endswith(".yaml") and (ROOT / name).exists():
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
            found += [(f"{name}:{at}", line.partition("#")[2]) for at, line in enumerate(lines, 1) if "#" in line]
    return found


@cache
def config_keys() -> set[str]:
    """Every dotted key of every script's config and of every file of its groups."""
    keys: set[str] = set()

    def walk(value, before: str) -> None:
        for key, inner in value.items() if isinstance(value, dict) else ():
            keys.add(f"{before}{key}")
            walk(inner, f"{before}{key}.")

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for script in sorted(path.stem for path in (ROOT / "conf").glob("*.yaml")):
            walk(OmegaConf.to_container(compose(script), resolve=False), "")
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        value = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        is_global = path.read_text(encoding="utf-8").startswith("# @package _global_")
        walk(value, "" if is_global else f"{path.parent.name}.")
    return keys


def names_something(dotted: str) -> bool:
    """A config key, a module, or something in a module."""
    words = dotted.split(".")
    if dotted in config_keys() or dotted in MODULES or dotted.startswith(OWN_NAMES):
        return True
    for cut in range(len(words) - 1, 0, -1):
        path = ROOT / ("/".join(words[:cut]) + ".py")
        if ".".join(words[:cut]) in MODULES and path.exists():
            return re.search(rf"\b{words[cut]}\b", path.read_text(encoding="utf-8")) is not None
    return False


def test_named_config_keys_and_modules_exist():
    first = {key.split(".")[0] for key in config_keys() if "." in key} | {module.split(".")[0] for module in MODULES}
    lost = []
    for place, text in texts():
        named = [dotted for dotted in KEY.findall(text) if dotted.split(".")[0] in first]
        lost += [f"{place}: {name}" for name in named if name.split(".")[-1] not in ENDINGS and not names_something(name)]
    assert not lost, "\n".join(lost)


def test_named_files_exist():
    lost = []
    for place, text in texts():
        for path in PATH.findall(text):
            ours = path.split("/")[0] in FOLDERS if "/" in path else path.startswith("requirements") or path in SCRIPTS
            if ours and "NAME" not in path and not any(f"/{name}".endswith(f"/{path}") for name in TRACKED):
                lost.append(f"{place}: {path}")
    assert not lost, "\n".join(lost)


def test_named_headings_exist():
    for place, text in texts():
        for page, heading in HEADING.findall(text):
            path = ROOT / (page if page.endswith(".md") else f"{page}.md")
            held = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M) if path.exists() else []
            assert any(heading.strip().startswith(title) for title in held), f"{place}: {page} has no heading {heading!r}"


@pytest.mark.parametrize("kind", ["top", "anywhere"])
def test_imported_packages_are_required(kind):
    """Packages imported at the top of a module are in requirements.txt; those imported later, in one of the files."""
    wanted = r"requirements\.txt" if kind == "top" else r"requirements[\w-]*\.txt"
    lines = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in TRACKED if re.fullmatch(wanted, name))
    required = {name.lower().replace("-", "_") for name in re.findall(r"^([A-Za-z][\w-]*)", lines, re.M)}
    required |= {package for name in required & set(BRINGS) for package in BRINGS[name]}
    missing = set()
    for name in CODE:
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        for node in tree.body if kind == "top" else ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for package in {whole.split(".")[0] for whole in names}:
                if package not in sys.stdlib_module_names | FOLDERS | required and f"{package}.py" not in SCRIPTS:
                    missing.add(f"{name}: {package}")
    assert not missing, "\n".join(sorted(missing))
