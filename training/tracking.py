"""What a run leaves behind: config.yaml, metrics.jsonl, summary.json. The files are the truth, W&B mirrors them."""

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from common.errors import UserError
from common.files import json_line, read_json, write_bytes, write_json, write_text
from common.launch import git_state

# Settings that may change between the parts of one run: they decide nothing about its result.
NEUTRAL = (
    "run_dir",
    "tracker",
    "resume",
    "device",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "threads",
    "hydra",
)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings, NEUTRAL ones apart, that are not the same: "key: before -> now"."""
    a, b = ({k: v for k, v in flatten(x).items() if k.split(".")[0] not in NEUTRAL} for x in (before, now))
    return [f"{key}: {a.get(key)} -> {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def read_settings(run: Path) -> dict[str, Any] | None:
    """The resolved config that a run folder was started with; None for a new folder."""
    path = run / "config.yaml"
    return OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else None  # type: ignore[return-value]


def is_done(run: Path, settings: dict[str, Any]) -> bool:
    """Whether `run` holds a finished run of these settings; UserError if it holds one of others."""
    before = read_settings(run)
    if before is None:
        return False
    if changed := differences(before, settings):
        raise UserError(
            f"{run}: holds a run of another config ({'; '.join(changed[:4])}). "
            "Give this one another name=..., or remove that folder."
        )
    return (run / "summary.json").exists() and read_json(run / "summary.json").get("status") == "done"


class Tracker:
    """Writes a run's metrics; only the first rank has one that does anything."""

    def __init__(self, run: Path, settings: dict[str, Any], active: bool, resumed_step: int | None) -> None:
        self.run, self.active, self.wandb = run, active, None
        if not active:
            return
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "config.yaml").exists():
            write_text(run / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
            state = git_state()
            if state["diff"]:
                write_text(run / "git.diff", state["diff"])
            write_json(run / "environment.json", {"commit": state["commit"], "changed": state["changed"], **machine()})
        for name in ("metrics.jsonl", "skipped.jsonl"):
            self._forget_after(run / name, -1 if resumed_step is None else resumed_step)
        self.file = open(run / "metrics.jsonl", "ab")  # noqa: SIM115  (open for the life of the run)
        if settings["tracker"]["kind"] == "wandb":
            self._start_wandb(settings)

    def _forget_after(self, path: Path, step: int) -> None:
        """Drop the lines that the killed process wrote after the checkpoint we go on from; they will be written again.

        So will the evaluation at `step`, which comes after the checkpoint.
        """
        if not path.exists():
            return
        kept = []
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                values = json.loads(line)
                if values["step"] < step or (values["step"] == step and "heldout" not in values):
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # the torn last line of a killed process
        write_bytes(path, b"".join(kept))

    def _start_wandb(self, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("tracker=wandb: wandb is not installed. Install it, or use tracker=local.") from None
        tracker = settings["tracker"]
        if tracker["mode"] not in ("online", "offline"):
            raise UserError(f"tracker.mode={tracker['mode']}: choose online or offline (or tracker=local for no W&B).")
        path = self.run / "wandb.json"
        identity = read_json(path)["id"] if path.exists() else secrets.token_hex(4)
        write_json(path, {"id": identity})
        with self._mirroring():
            self.wandb = wandb.init(
                project=tracker["project"], entity=tracker["entity"], mode=tracker["mode"], id=identity, resume="allow",
                name=settings["name"], notes=self.run.name, dir=str(self.run), config=settings,
                settings=wandb.Settings(console="off"),
            )  # fmt: skip

    @contextlib.contextmanager
    def _mirroring(self) -> Iterator[None]:
        """Whatever W&B raises (no account, no network, a dead service) costs the mirror, never the run."""
        try:
            yield
        except Exception as error:
            self.wandb = None
            print(f"warning: W&B stopped mirroring ({type(error).__name__}: {error}). The run goes on; metrics.jsonl is whole. "
                  "Set tracker.mode=offline where there is no account or network.", file=sys.stderr)  # fmt: skip

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl (it has a "step") and mirror its numbers."""
        if not self.active:
            return
        self.file.write(json_line(values))
        self.file.flush()
        if self.wandb is not None:
            numbers = {k.replace(".", "/"): v for k, v in flatten(values).items() if isinstance(v, (int, float))}
            with self._mirroring():
                self.wandb.log(numbers, step=values["step"])

    def close(self, summary: dict[str, Any]) -> None:
        """Write summary.json and end the mirror."""
        if not self.active:
            return
        os.fsync(self.file.fileno())
        self.file.close()
        write_json(self.run / "summary.json", summary)
        if self.wandb is not None:
            with self._mirroring():
                self.wandb.summary.update({k: v for k, v in flatten(summary).items() if isinstance(v, (int, float, str))})
        self.finish_mirror()

    def finish_mirror(self) -> None:
        """Let W&B send what it has; the run may be resumed under the same id."""
        if self.wandb is not None:
            with self._mirroring():
                self.wandb.finish()
            self.wandb = None


def machine() -> dict[str, Any]:
    """Where this runs: enough to read a speed by."""
    name = None
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    return {
        "python": platform.python_version(), "torch": torch.__version__, "system": platform.platform(terse=True),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": name, "command": sys.argv,
    }  # fmt: skip


def reset_peak_memory(device: torch.device) -> bool:
    """Forget the peak so far, so that a run in a process that did others has its own; False where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    gc.collect()
    try:
        with contextlib.suppress(AttributeError, OSError):  # memory freed by the run before goes back first (glibc only)
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is resident now
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


def power_watts() -> float | None:
    """Power that the GPU draws now, or None where it cannot be read: then energy is "not measured", never 0."""
    if not torch.cuda.is_available():
        return None
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"],
                             capture_output=True, text=True, check=True, timeout=5)  # fmt: skip
        return sum(float(line) for line in out.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
