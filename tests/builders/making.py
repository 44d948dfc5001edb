"""What the tests of the builders share: a set built as a user would, and text with enough sentences for pairs."""

import random
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from builders.build import build
from builders.settings import Builder
from common.files import read_json, read_jsonl
from common.launch import ROOT
from common.overrides import readable
from tasks.load import SPLITS, Task, load_task
from tasks.settings import TaskSettings


def make(out: Path, *words: str) -> dict[str, Any]:
    """The report of a set built into `out` with these words of the command line."""
    assert build(composed(*words, f"out={out}")) == 0
    return read_json(out / "report.json")


def composed(*words: str) -> DictConfig:
    """The config of builders.build with these words of the command line."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("build", readable([*words], Builder))


def read_by_finetune(out: Path, report: dict[str, Any], ending: str = "jsonl") -> Task:
    """The written set as a fine-tuning run loads it, by the keys that its report names."""
    files = {split: str(out / "data" / f"{split}.{ending}") for split in SPLITS}
    return load_task(TaskSettings(kind=report["kind"], language=report["language"], **files, **report["task"]))


def rows_of(out: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Examples of one part of a written set, or of all."""
    parts = [split] if split else ["train", "dev", "test"]
    return [row for part in parts for _, row in read_jsonl(out / "data" / f"{part}.jsonl")]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def documents(number: int = 120, sentences: int = 16, seed: int = 0, words: str = "") -> list[dict[str, str]]:
    """Documents of sentences of several lengths whose words no other document has in this order."""
    draw = random.Random(seed)
    lexicon = (words or "kitab oxuyan uşaq bağda qırmızı alma gördü sonra çay kənarında dostu ilə böyük şəhərə getdi").split()
    made = []
    for d in range(number):
        lines = []
        for _ in range(sentences):
            own = [draw.choice(lexicon) for _ in range(draw.randint(5, 9))]
            lines.append(f"{own[0].capitalize()} {' '.join(own[1:])} {draw.choice('abcdeç')}{draw.randint(100, 999)}{d:03d}.")
        made.append({"id": f"d{d}", "text": " ".join(lines)})
    return made
