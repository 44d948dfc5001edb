"""The files of a run: config.yaml, metrics.jsonl, summary.json. They are the reference; W&B mirrors them."""

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from common.files import digest_of, json_line, write_bytes, write_json, write_text, writing
from common.launch import git_state, is_sweep
from model.store import resolve_checkpoint
from training import mirror
from training.settings import TrackerSettings

try:
    import pynvml
except ImportError:  # in requirements-extra.txt; without it energy is "not measured"
    pynvml = None


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def shown_as(job: str, experiment: str, part: str, folder: Path, tags: list[str]) -> dict[str, Any]:
    """How W&B shows a run: its name, group, job type and tags, within W&B's limits on length; its own files lie in `folder`.

    All runs of one experiment form one group: training, the jobs of a sweep, fine-tuning and benchmarks.
    """
    return {
        "name": short_name(f"{experiment}/{part}", 128),
        "group": short_name(experiment, 128),
        "job_type": job,
        "tags": [short_name(tag, 64) for tag in dict.fromkeys([*tags, *(["sweep"] if is_sweep() else [])]) if tag],
        "notes": part,
        "dir": str(folder),
    }


def short_name(name: str, most: int) -> str:
    """A name of at most `most` characters; a digest in place of the end keeps long names apart."""
    return name if len(name) <= most else f"{name[: most - 9]}-{digest_of(name)[:8]}"


def for_wandb(values: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a line by their path; for each mask prompt the guesses as a text, and the highest probability."""
    shown: dict[str, Any] = {}
    for number, (sentence, holes) in enumerate((values.get("mask_prompts") or {}).items(), start=1):
        guessed = "; ".join(", ".join(f"{token} {chance:.2f}" for token, chance in hole.items()) for hole in holes)
        shown[f"mask_prompts/{number}"] = f"{sentence} → {guessed}"
        shown[f"mask_prompts/{number}/likeliest"] = max(holes[0].values())
    rest = {key: value for key, value in values.items() if key != "mask_prompts"}
    return {k.replace(".", "/"): v for k, v in flatten(rest).items() if isinstance(v, (int, float))} | shown


def last_step(path: Path) -> int | None:
    """The last step in a file of metrics, without regard to incomplete lines; None if there is none."""
    steps = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            steps.append(json.loads(line)["step"])
    return max(steps, default=None)


class Tracker:
    """Writes a run's metrics; only the first rank's tracker is active.

    `config` is what config.yaml records of the run's settings. If `settings` ask for W&B, it shows the run as `shown` says
    (made by `shown_as`).
    """

    def __init__(
        self,
        run: Path,
        settings: TrackerSettings,
        shown: dict[str, Any],
        config: dict[str, Any],
        active: bool = True,
        resumed_step: int | None = None,
    ) -> None:
        self.run, self.active, self.wandb, self.mirrored = run, active, None, -1
        self.artifacts = settings.artifacts
        if not active:
            return
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "config.yaml").exists():
            self._describe(config)
        written = last_step(run / "metrics.jsonl")
        for file in ("metrics.jsonl", "skipped.jsonl"):
            self._forget_after(run / file, -1 if resumed_step is None else resumed_step)
        self.file = open(run / "metrics.jsonl", "ab", buffering=0)  # noqa: SIM115  (open for the life of the run)
        if settings.kind == "wandb":
            self._start_wandb(settings, shown, config, written)

    def _describe(self, config: dict[str, Any]) -> None:
        """Write the run's config, code and machine. config.yaml is last, since it marks the others as complete."""
        state = git_state()
        if state["diff"]:
            write_text(self.run / "git.diff", state["diff"])
        write_json(self.run / "environment.json", {"commit": state["commit"], "changed": state["changed"], **machine()})
        write_text(self.run / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))

    def _forget_after(self, path: Path, step: int) -> None:
        """Drop the lines that a killed process wrote after the checkpoint that we resume from; they will be written again.

        That includes the evaluation and the task scores at `step`, which come after the checkpoint.
        """
        if not path.exists():
            return
        kept = []
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                values = json.loads(line)
                if values["step"] < step or (values["step"] == step and not {"heldout", "tasks"} & set(values)):
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # the incomplete last line of a killed process
        write_bytes(path, b"".join(kept))

    def _start_wandb(
        self, settings: TrackerSettings, shown: dict[str, Any], config: dict[str, Any], written: int | None
    ) -> None:
        """Start the mirror. `written`: the last step that an earlier part of this run wrote; None for a new run.

        A part that resumes offline starts with the lines of the parts before it, which are moved aside unless they have been
        sent. Thus one folder has the whole history, even if a killed part had gone past its last checkpoint. No step that
        was sent is sent again.
        """
        own = Path(shown["dir"]) / "wandb"
        identity = mirror.identity_in(self.run / "wandb.json", known=written is not None)
        earlier = sorted(own.glob(f"*run-*-{identity}"))
        unsent = all(part.name.startswith("offline-") and not list(part.glob("*.sync*")) for part in earlier)
        again = bool(earlier) and unsent and settings.mode == "offline"
        with self._mirroring():
            for part in earlier if again else []:
                (own / "earlier").mkdir(exist_ok=True)
                part.rename(own / "earlier" / part.name)
            self.wandb = mirror.begin(settings, shown, identity, config)
        if again:
            for line in (self.run / "metrics.jsonl").read_bytes().splitlines():
                self._mirror(json.loads(line))
        elif earlier:
            self.mirrored = written if written is not None else -1

    def _mirror(self, values: dict[str, Any]) -> None:
        if self.wandb is not None and values["step"] > self.mirrored:
            with self._mirroring():
                self.wandb.log(for_wandb(values), step=values["step"])

    @contextlib.contextmanager
    def _mirroring(self) -> Iterator[None]:
        """An error of W&B ends the mirror, never the run."""
        with mirror.mirroring() as failed:
            yield
        if failed:
            self.wandb = None

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl (it has a "step") and mirror its numbers and mask prompts."""
        if not self.active:
            return
        line = memoryview(json_line(values))
        with writing(self.run / "metrics.jsonl"):
            while line:
                line = line[self.file.write(line) :]
        self._mirror(values)

    def send_checkpoint(self, folder: Path, run: Path, start: str | Path | None) -> None:
        """`folder`, the checkpoint of `run`, and its `start` (None: new weights) go to W&B if tracker.artifacts says so."""
        if self.wandb is not None and self.artifacts:
            with self._mirroring():
                whence = resolve_checkpoint(start) if start else None
                mirror.send_checkpoint(self.wandb, folder, run / "checkpoint", whence)

    def close(self, summary: dict[str, Any]) -> None:
        """Write summary.json and end the mirror."""
        if not self.active:
            return
        with writing(self.run / "metrics.jsonl"):
            os.fsync(self.file.fileno())
            self.file.close()
        write_json(self.run / "summary.json", summary)
        if self.wandb is not None:
            with self._mirroring():
                self.wandb.summary.update({k: v for k, v in flatten(summary).items() if isinstance(v, (int, float, str))})
        self.finish_mirror()

    def finish_mirror(self) -> None:
        """Let W&B send the rest of its data; the run may be resumed under the same id."""
        if self.wandb is not None:
            with self._mirroring():
                self.wandb.finish()
            self.wandb = None


def machine() -> dict[str, Any]:
    """Description of this machine, to interpret speeds."""
    name = None
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": name,
        "command": sys.argv,
    }


def reset_peak_memory(device: torch.device) -> bool:
    """Reset the peak, so that a run in a process with earlier runs has its own; False if the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    gc.collect()
    try:
        with contextlib.suppress(AttributeError, OSError):  # first return memory freed by the run before (glibc only)
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes the present resident size
        return True
    except OSError:
        return False


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process since its start or the last reset: allocated on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def energy_joules(device: torch.device) -> float | None:
    """Energy that this process's GPU has used since its driver was loaded; None without a readable counter.

    Uses NVML's own counter (Volta and later): no sampling, no waiting, and other GPUs of the host do not count.
    """
    if device.type != "cuda" or pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # from millijoules
    except (AttributeError, pynvml.NVMLError):
        return None


def energy_since(before: float | None, device: torch.device) -> float | None:
    """Joules used since `energy_joules` returned `before`; None without a counter."""
    now = energy_joules(device)
    return None if before is None or now is None else now - before
