"""Texts through a translator that the user names: a command that reads and writes JSON lines, or a model of transformers.

The command gets one line {"text": ...} for each text on its standard input, which is then closed, and writes one line for each
in the same order: {"text": ...} or a JSON string. Each `chunk` of texts is one run of it, and is kept as soon as it is whole,
so a build that was killed goes on after it. A model is a folder or a name that transformers loads, as OPUS-MT's.
"""

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from common.errors import UserError
from common.files import digest_of, json_line, sha256_file
from common.progress import progress

SCRIPTS = (".py", ".sh", ".pl", ".rb", ".js", ".jl", ".lua", ".r", ".R")
SHOWN = 300  # characters of a faulty line or of the command's own complaint


def files_of_translator(own: Mapping[str, Any]) -> list[Path]:
    """Files that decide what the translator says: the scripts named in its command, or the model's.

    A file of another kind in the command may be a log or a cache, which changes while it runs.
    """
    if own["model"]:
        folder = Path(str(own["model"])).expanduser()
        return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return [path for word in shlex.split(own["command"] or "") if (path := Path(word)).suffix in SCRIPTS and path.is_file()]


def translated(texts: Sequence[str], own: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """{text: translation} of all texts; what `folder` holds already is not translated again.

    Raises UserError for a command that cannot be started, fails, hangs or writes other lines than it should, and for a model
    that cannot be loaded.
    """
    known_by = [own["command"], own["model"], own["markers"], [sha256_file(path) for path in files_of_translator(own)]]
    store = folder / f"{digest_of(known_by)[:16]}.jsonl"
    known = _held(store)
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    bar = progress(total=len(missing), desc="translate", unit=" texts", leave=False)
    size = own["chunk"]
    for chunk in (missing[at : at + size] for at in range(0, len(missing), size)):
        said = by_model(chunk, own) if own["model"] else by_command(chunk, own["command"], own["timeout_s"])
        _keep(store, chunk, said)
        known |= dict(zip(chunk, said, strict=True))
        bar.update(len(chunk))
    bar.close()
    return {text: known[text] for text in texts}


def _held(store: Path) -> dict[str, str]:
    """What was translated before; a last line that was not written whole is cut off."""
    if not store.exists():
        return {}
    content = store.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(store, len(whole))
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row["text"]: row["translation"] for row in rows}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{store}: damaged. Remove it; its texts are then translated again.") from None


def _keep(store: Path, texts: Sequence[str], said: Sequence[str]) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    with open(store, "ab") as file:
        file.write(b"".join(json_line({"text": t, "translation": s}) for t, s in zip(texts, said, strict=True)))
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------- a command


def by_command(texts: Sequence[str], command: str, timeout: float) -> list[str]:
    """The translations of one run of the command. Raises UserError as `translated`."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,  # so that what it starts is ended with it
            )
        except (OSError, ValueError) as error:
            raise UserError(f"translate.command={command}: cannot be started ({error}). Correct the command.") from None
        lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_feed, args=(process.stdin, texts), daemon=True).start()
        threading.Thread(target=_listen, args=(process.stdout, lines), daemon=True).start()
        said: list[str] = []
        try:
            while (line := lines.get(timeout=timeout)) is not None:
                if line.strip():
                    said.append(_text_of(line, len(said) + 1, command))
            code = process.wait(timeout=timeout)
        except (queue.Empty, subprocess.TimeoutExpired):
            raise UserError(
                f"translate.command={command}: no line for {timeout:g} s, after {len(said)} of {len(texts)} texts. It must "
                "write a line for each text and end when its input ends; or set translate.timeout_s higher."
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        complaints.seek(0)
        told = complaints.read().decode("utf-8", errors="replace").strip()[-SHOWN:]
    if code:
        raise UserError(f"translate.command={command}: ended with code {code} after {len(said)} of {len(texts)} texts. {told}")
    if len(said) != len(texts):
        raise UserError(
            f"translate.command={command}: {len(said)} lines for {len(texts)} texts, so which is whose cannot be told. It must "
            f"write one line for each text. {told}"
        )
    return said


def _feed(stdin: IO[bytes], texts: Sequence[str]) -> None:
    with contextlib.suppress(OSError, ValueError):  # it ended before it read everything, which its lines will tell
        for text in texts:
            stdin.write(json_line({"text": text}))
        stdin.close()


def _listen(stdout: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)


def _text_of(line: bytes, number: int, command: str) -> str:
    try:
        value = json.loads(line)
        text = value.get("text") if isinstance(value, dict) else value
        if isinstance(text, str):
            return text
    except ValueError:
        pass
    raise UserError(
        f"translate.command={command}: line {number} of its output is neither a JSON string nor an object with a text: "
        f"{line[:SHOWN].decode('utf-8', errors='replace').strip()}"
    )


# ---------------------------------------------------------------- a model


def by_model(texts: Sequence[str], own: Mapping[str, Any]) -> list[str]:
    """The translations of a sequence-to-sequence model, each token its likeliest; texts of similar length go together."""
    import torch

    tokenizer, model = _loaded(str(own["model"]))
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    said = [""] * len(texts)
    for at in range(0, len(order), own["batch"]):
        part = order[at : at + own["batch"]]
        inputs = tokenizer([texts[place] for place in part], return_tensors="pt", padding=True, truncation=True)
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            ids = model.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=own["max_tokens"])
        for place, text in zip(part, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            said[place] = text.strip()
    return said


@cache
def _loaded(name: str) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError:
        raise UserError("translate.model needs transformers. pip install -r requirements-extra.txt") from None
    place = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    try:
        return AutoTokenizer.from_pretrained(place), AutoModelForSeq2SeqLM.from_pretrained(place).eval()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"translate.model={name}: cannot be loaded ({str(error).splitlines()[0]}). Correct it.") from None
