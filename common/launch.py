"""How the scripts start: Hydra composes the config, errors end with a message and a code, the run folder is fixed."""

import hashlib
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from common.errors import EXIT_USER_ERROR, UserError

ROOT = Path(__file__).resolve().parent.parent
EXIT_REQUEUE = 85  # interrupted on request, checkpoint written: start the same command again (see training/signals)


def launch(task: Callable[[DictConfig], int | None], config_name: str) -> None:
    """Run `task(config)` under Hydra (single run or `-m` sweep) and turn every ending into an exit code.

    0 done; 2 the user can put it right (bad key, bad value, bad file): one message, no traceback; `task` may return
    another code (EXIT_REQUEUE). Any other exception is a defect and keeps its traceback (code 1).
    """
    entered = False

    def guarded(config: DictConfig) -> None:
        nonlocal entered
        entered = True
        try:
            code = task(config)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = EXIT_USER_ERROR
        except Exception:
            traceback.print_exc()
            code = 1
        if code:
            sys.exit(code)

    guarded.__module__ = "__main__"
    try:
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=config_name)(guarded)()
    except SystemExit as error:
        # Hydra itself ends with 1 when a key or a group does not exist, before the task is entered.
        raise SystemExit(EXIT_USER_ERROR if error.code == 1 and not entered else error.code) from None


def folder_name(overrides: str) -> str:
    """A sweep's folder for one job, from Hydra's override_dirname: no slash in it, and no longer than a file name may be."""
    name = overrides.replace("/", "_")
    return name if len(name) <= 160 else f"{name[:140]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain dictionaries with every interpolation resolved; raises UserError for a missing value."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except Exception as error:
        raise UserError(f"config: {error}") from None


def git_state() -> dict[str, Any]:
    """Commit and whether tracked files differ from it; None where the code is not in a git checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout

    try:
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "changed": bool(git("status", "--porcelain", "-uno").strip()),
            "diff": git("diff", "HEAD"),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None, "diff": None}
