"""Score classification with the masked-LM head, without any training: which class' word fits the gap.

    python -m training.cloze CHECKPOINT --task az_topic --out runs/mine/benchmark

The task's file names a sentence and a word of each class, `cloze: "{text} This is about [MASK]."` and `verbalisers: {sport:
football, ...}` (PET, Schick & Schütze 2021, arXiv 2001.07676). A class' score is the mean over its words of log p(word | text)
- log p(word | no text): without the second part frequent words win (Holtzman et al. 2021, arXiv 2104.08315). A word of k
tokens has k masks, and its mean over them. finetune.py and benchmark.py make the row too. Like a baseline it has one run.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from common.code import code_files
from common.errors import UserError, command
from common.files import digest_of
from common.launch import read_option, resolved
from common.settings import typed
from data.layout import Layout, move
from language.base import load_language
from model.folder import fill
from model.mlm import MaskedLM
from tasks.base import log_softmax, rounded
from tasks.settings import TaskSettings
from tokenization.tokenizer import MASK, Tokenizer
from training.distributed import start as start_device
from training.runs import Data, deciding_code, prepare_data, write_inputs
from training.task_models import Start, read_start
from training.zero_shot import write_row

FIELDS = ("text", "text_b")


def filled(tokenizer: Tokenizer, pattern: str, example: dict[str, Any], masks: int, longest: int) -> tuple[np.ndarray, bool]:
    """Ids of the sentence with an example's texts and so many masks, framed; whether its texts had to be cut."""
    own = re.compile("|".join(map(re.escape, (MASK, tokenizer.special_tokens[4]))))  # a text may name the mask
    texts = {name: own.sub(" ", str(example.get(name, ""))).split() for name in FIELDS}
    cut = False
    while True:
        text = pattern.replace(MASK, " ".join([MASK] * masks))
        for name, words in texts.items():
            text = text.replace(f"{{{name}}}", " ".join(words))
        ids = tokenizer.encode_with_masks(re.sub(r" {2,}", " ", text).strip())
        if len(ids) + 2 <= longest:
            return np.concatenate([[tokenizer.cls_id], ids, [tokenizer.sep_id]]).astype(np.int64), cut
        name = max(texts, key=lambda name: len(texts[name]))
        if not texts[name]:
            raise UserError(f"task.cloze: the sentence alone has {len(ids)} tokens, the model reads {longest}. Shorten it.")
        texts[name], cut = texts[name][: len(texts[name]) * 9 // 10], True


@torch.no_grad()
def mask_scores(model: MaskedLM, tokenizer: Tokenizer, rows: Sequence[np.ndarray], words: np.ndarray, most: int) -> np.ndarray:
    """Mean log-probability [rows, words] of words [words, k], whose tokens stand at the k masks of each row."""
    device, found = model.head.bias.device, []
    tokens = torch.from_numpy(words).to(device)
    begin = 0
    while begin < len(rows):
        end, size = begin + 1, len(rows[begin])
        while end < len(rows) and size + len(rows[end]) <= most:
            size += len(rows[end])
            end += 1
        ids = np.concatenate(rows[begin:end])
        layout = Layout.of([len(row) for row in rows[begin:end]])
        layout, asked = layout.asking(np.flatnonzero(ids == tokenizer.mask_id), device)
        logs = model.logits(move(torch.from_numpy(ids), device), layout, asked).float().log_softmax(-1)
        logs = logs.view(end - begin, 1, words.shape[1], -1).expand(-1, len(words), -1, -1)
        index = tokens[None, :, :, None].expand(end - begin, -1, -1, -1)
        found.append(logs.gather(3, index)[..., 0].mean(2).double().cpu().numpy())
        begin = end
    return np.concatenate(found)


def class_scores(
    model: MaskedLM, tokenizer: Tokenizer, data: Data, examples: list[dict], most: int
) -> tuple[np.ndarray, list[bool]]:
    """Score [examples, classes], and whether each example's texts were cut."""
    task, longest = data.task, min(data.max_length, model.encoder.config.max_length)
    every = [(number, word) for number, label in enumerate(task.labels) for word in task.verbalisers[label]]
    ids = dict(zip([word for _, word in every], tokenizer.encode_words([word for _, word in every]), strict=True))
    sums, counts, cuts = np.zeros((len(examples), len(task.labels))), np.zeros(len(task.labels)), [False] * len(examples)
    for size in sorted({len(tokens) for tokens in ids.values()}):
        chosen = [(number, word) for number, word in every if len(ids[word]) == size]
        words = np.stack([ids[word] for _, word in chosen]).astype(np.int64)
        made = [filled(tokenizer, task.cloze, example, size, longest) for example in [*examples, {}]]
        logs = mask_scores(model, tokenizer, [row for row, _ in made], words, most)
        cuts = [one or cut for one, (_, cut) in zip(cuts, made[:-1], strict=True)]
        for (number, _), column in zip(chosen, (logs[:-1] - logs[-1:]).T, strict=True):
            sums[:, number] += column
            counts[number] += 1
    return sums / counts, cuts


def cloze(start: Start, data: Data, max_tokens: int, device: torch.device, out: Path) -> dict[str, Any] | None:
    """Write <out>/<model>-cloze/<task>/seed-0/ and return its summary.

    None for a task without verbalisers, and for a checkpoint without weights or masked-LM head. Computed in fp32.
    """
    task = data.task
    if not task.verbalisers or not start.has_masked_lm_head:
        return None
    code = [deciding_code(), code_files("training.cloze", rooms=("model", "data", "tasks", "tokenization", "language"))]
    digest = digest_of([*code, start.identity, data.digest, data.max_length, task.cloze, task.verbalisers])

    def predict() -> dict[str, list[dict[str, Any]]]:
        model = MaskedLM(start.config)
        fill(model, {n: v for n, v in start.weights.items() if not n.startswith("encoder.pooler.")}, start.path)
        model.eval().to(device)
        found: dict[str, list[dict[str, Any]]] = {}
        for split in ("dev", "test"):
            examples, encoded = getattr(task, split), data.splits[split]
            scores, cuts = class_scores(model, start.tokenizer, data, examples, max_tokens)
            found[split] = [
                {
                    "id": example["id"],
                    "pred": task.labels[int(row.argmax())],
                    "scores": dict(zip(task.labels, rounded(log_softmax(row)), strict=True)),
                    "text": "\n".join(example[name] for name in FIELDS if name in example),
                    "tokens": encoded.tokens(number),
                    "truncated": cuts[number],
                }
                for number, (example, row) in enumerate(zip(examples, scores, strict=True))
            ]
        return found

    return write_row(out / f"{start.name}-cloze" / task.name / "seed-0", digest, start, data, predict)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.cloze", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="a pre-trained checkpoint with its masked-LM head")
    parser.add_argument("--task", required=True, action="append", help="a file of conf/task; may be given several times")
    parser.add_argument("--out", required=True, help="folder of the results, for example that of a benchmark")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(arguments)
    device, start = start_device(options.device).device, read_start(options.checkpoint)
    if not start.has_masked_lm_head:
        raise UserError(f"{options.checkpoint}: has no masked-LM head (fine-tuned?). Take the pre-trained checkpoint.")
    for name in options.task:
        chosen = read_option("task", name)
        own = chosen.language if "${" not in str(OmegaConf.to_container(chosen)["language"]) else None
        language = load_language(own) if own else start.language
        chosen.language = language and language.name
        settings = typed(TaskSettings, resolved(chosen, TaskSettings), "task")
        if not settings.verbalisers:
            raise UserError(f"task={name}: has no verbalisers. Add cloze and verbalisers to conf/task/{name}.yaml.")
        data = prepare_data(settings, start, {})
        write_inputs(Path(options.out), data.task)
        made = cloze(start, data, 8192, device, Path(options.out))
        print(
            f"{made['model']} on {made['task']}: dev {made['metric']} {100 * made['dev_score']:.1f}, "
            f"test {100 * made['test_score']:.1f}; {made['folder']}"
        )


if __name__ == "__main__":
    sys.exit(main())
