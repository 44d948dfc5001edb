"""Start of the scripts: Hydra composes the config, errors end with a message and an exit code, the run folder is fixed."""

import hashlib
import math
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import EXIT_INTERRUPT, EXIT_USER_ERROR, UserError, disk_error
from common.files import ROOT
from common.overrides import explain, readable, told_apart, with_names
from common.settings import checked
from common.slurm import refused

EXIT_REQUEUE = 85  # stopped by SIGTERM or SIGUSR1, checkpoint written: start the same command again
EXIT_DEFECT = 1


class JobFailed(Exception):
    """A job of a sweep ended with `code` in another process, on another machine perhaps; `told` names it and says why."""

    def __init__(self, told: str, code: int) -> None:
        super().__init__(told, code)
        self.told, self.code = told, code


def launch(
    task: Callable[[DictConfig], int | None],
    config_name: str,
    schema: type,
    objective: Callable[[DictConfig], float | None] | None = None,
) -> None:
    """Run `task(config)` under Hydra (a single run or a `-m` sweep) and turn every ending into an exit code.

    Codes: 0 done; 2 an error that the user can correct (bad key, value or file), with one message and no traceback; 130
    Ctrl-C; 1 any other exception, which is a defect and keeps its traceback. `task` may return another code (EXIT_REQUEUE).
    In a sweep a job that fails is named and the next one runs; the exit code is that of the first failure. Jobs that a launcher
    runs elsewhere (Slurm) all run, and the first failure is named at the end.

    `schema` is the dataclass of the script's settings; --help lists its keys and no other key of conf/. `objective(config)`
    is the value that a sweeper such as Optuna's gets for a finished job; NaN for one that failed.
    """
    words = sys.argv[1:]
    if {"-h", "--help"} & {*words}:
        print(help_of(config_name, schema))
        return
    words = readable(words, schema)
    sys.argv[1:] = words = [*words, *told_apart(words, excluded_keys(config_name))]
    failed: list[tuple[str, int]] = []

    def guarded(config: DictConfig) -> float | None:
        why = "failed"
        try:
            settle_budget(config, HydraConfig.get().overrides.task)
            code = task(config)
        except (Exception, KeyboardInterrupt) as error:
            code, why = tell(error)
        if not code:
            return objective(config) if objective and is_sweep() else None
        if code in (EXIT_REQUEUE, EXIT_INTERRUPT) or not is_sweep():
            sys.exit(code)
        job, place = HydraConfig.get().job, HydraConfig.get().sweep.dir
        if "BasicLauncher" not in HydraConfig.get().launcher._target_:  # submitit would wait for ever for one that exits
            raise JobFailed(f"job {job.num} ({job.override_dirname}): {why} (code {code}; logs of all: {place})", code)
        failed.append((job.override_dirname, code))
        print(f"sweep: job {job.num} ({job.override_dirname}) ended with code {code}; the others go on", file=sys.stderr)
        return math.nan if objective else None

    try:
        check_name(sys.argv[1:])
    except UserError as error:  # raised before Hydra makes the folder
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    guarded.__module__ = "__main__"
    if {"-m", "--multirun"} & {*words}:  # jobs that a launcher starts elsewhere find our modules, from whatever folder
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    asked = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    try:
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        if asked:
            raise
        print(f"error: {explain(error, words, _composed(config_name))}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except JobFailed as error:
        print(f"sweep: {error.told}; the others went on. The same command skips those that are done.", file=sys.stderr)
        raise SystemExit(error.code) from None
    except Exception as error:
        if asked or not (told := refused(error)):
            raise
        print(f"error: {told}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    if failed:
        print(
            f"sweep: {len(failed)} jobs failed:",
            *(f"{name} (code {code})" for name, code in failed),
            sep="\n  ",
            file=sys.stderr,
        )
        raise SystemExit(failed[0][1])


def tell(error: BaseException) -> tuple[int, str]:
    """Print an error where it is caught, as `launch` says; returns its exit code and what it says in a line."""
    if isinstance(error, KeyboardInterrupt):
        print("stopped by Ctrl-C", file=sys.stderr)
        return EXIT_INTERRUPT, "stopped by Ctrl-C"
    if told := error if isinstance(error, UserError) else disk_error(error):
        print(f"error: {told}", file=sys.stderr)
        return EXIT_USER_ERROR, str(told)
    traceback.print_exc()
    return EXIT_DEFECT, f"{type(error).__name__}: {error}"


def excluded_keys(config_name: str) -> list[str]:
    """The keys that are left out of the folder names of a sweep."""
    for name in (config_name, "base"):
        found = OmegaConf.select(OmegaConf.load(ROOT / "conf" / f"{name}.yaml"), "hydra.job.config.override_dirname")
        if found:
            return list(found.get("exclude_keys") or [])
    return []


def is_sweep() -> bool:
    """Whether this process runs a job of a sweep (-m)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _composed(config_name: str) -> DictConfig | None:
    """The config without any override of the command line."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose(config_name)


def help_of(config_name: str, schema: type) -> str:
    """The text of --help: what the script is for, its groups, and every key that it reads with its default."""
    config = _composed(config_name)
    keys = [field for field in schema.__dataclass_fields__ if field in config]  # type: ignore[attr-defined]
    shown = OmegaConf.to_yaml(OmegaConf.masked_copy(config, keys))
    groups = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    options = {name: ", ".join(sorted(path.stem for path in (ROOT / "conf" / name).glob("*.yaml"))) for name in groups}
    listed = "\n".join(f"  {name}: {options[name]}" for name in groups if name in (*keys, "experiment", "debug", "launcher"))
    said = (sys.modules["__main__"].__doc__ or "").strip()
    return (
        f"{said}\n\nGroups (GROUP=FILE; the files are in conf/GROUP, with a comment for every key):\n{listed}\n\n"
        f"Keys (KEY=VALUE, dots for inner ones; a sweep: -m KEY=VALUE,VALUE):\n\n{shown}\n"
        "Words of Hydra itself: --hydra-help"
    )


def settle_budget(config: DictConfig, overrides: Iterable[str]) -> None:
    """A unit of `budget` on the command line replaces the config's unit: budget.steps=50 unsets budget.minutes."""
    given = {word.split("=")[0].split(".", 1)[1] for word in overrides if word.startswith("budget.") and "=" in word}
    given = {unit for unit in given if config.budget.get(unit) is not None}
    if given:
        OmegaConf.set_readonly(config, False)
        for unit in config.budget:
            if unit not in given:
                config.budget[unit] = None


def check_name(words: list[str]) -> None:
    """UserError for a name=... on the command line whose folder would not lie below runs/."""
    for word in words:
        key, _, value = word.partition("=")
        for name in value.split(",") if key.lstrip("+") == "name" else []:
            parts = name.strip(" '\"").split("/")
            if parts[0] in ("", "~") or {"..", "."} & set(parts):
                raise UserError(
                    f"name={name}: the experiment's folder is runs/<name> and must stay under runs/. Give a name without .. "
                    "and without a leading /; to write elsewhere set workdir=FOLDER."
                )


def folder_name(overrides: str) -> str:
    """A sweep's folder for one job, from Hydra's override_dirname.

    It has one level, is no longer than a file name may be, and uses only letters that a command line takes unquoted, so that
    the folder can be given as a value. Where letters are replaced or the end is cut, a digest keeps the names apart.
    """
    name = re.sub(r"[^\w.+-]", "_", overrides)
    if name == overrides and len(name) <= 160:
        return name
    return f"{name[:140]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def own_folder(*groups: str) -> str:
    """The suffix that a job of a sweep adds to a shared folder's name, from its overrides of these groups; "" without any.

    The jobs of a sweep share corpus, tokenizer and shards unless the sweep changes their contents.
    """
    if not is_sweep():
        return ""
    words = [str(word).lstrip("+~") for word in HydraConfig.get().overrides.task]
    mine = sorted(word for word in words if re.split(r"[.=@]", word)[0] in groups)
    return "-" + folder_name("+".join(word.replace("=", "-", 1) for word in mine)) if mine else ""


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_new_resolver("own_folder", own_folder, replace=True)


def resolved(config: DictConfig, schema: type) -> dict[str, Any]:
    """The config as plain dictionaries with interpolations resolved, in the types of `schema`; raises UserError."""
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if "Missing mandatory value" in str(error):
            raise UserError(f"{key}: not given. Add {key}=VALUE to the command.") from None
        raise UserError(f"{key or 'config'}: {str(error).splitlines()[0]}") from None
    return checked(schema, with_names(values, schema))  # type: ignore[arg-type]


def read_option(group: str, name: str) -> DictConfig:
    """conf/<group>/<name>.yaml merged over the files of the same folder that its `defaults` name, as Hydra composes it.

    Raises UserError if there is no such file.
    """
    path = ROOT / "conf" / group / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise UserError(f"{group}={name}: no such file in conf/{group}. There are: {known}.")
    own = OmegaConf.load(path)
    parts = [own if word == "_self_" else read_option(group, word) for word in own.pop("defaults", ["_self_"])]
    return OmegaConf.merge(*parts)  # type: ignore[return-value]


def git_state() -> dict[str, Any]:
    """Commit, and whether tracked files differ from it; both None outside a git checkout."""

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
