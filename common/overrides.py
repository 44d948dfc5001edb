"""Overrides of a command line before Hydra reads them: values that it cannot parse are quoted, wrong keys are explained."""

import re
import typing
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from common.settings import did_you_mean, paths_of, renamed

SWEEP = ("-m", "--multirun")
FLAGS_WITH_A_VALUE = (
    "--config-dir",
    "--config-path",
    "--config-name",
    "--package",
    "--experimental-rerun",
    "-cd",
    "-cp",
    "-cn",
    "-p",
)
WORD = re.compile(r"([+~]*)([^=\s'\"\[{(]+)=(.*)", re.S)


def readable(words: list[str], schema: type) -> list[str]:
    """The overrides with every value quoted that Hydra's grammar does not accept; nothing else changes.

    So corpus.path=mətnlər, "corpus.path=öz mətnim (1)", corpus.path=epoch=3 and, outside a sweep, corpus.path=a,b are taken
    literally. In lists and dictionaries each text is quoted. A key inside a setting with names of the user's own
    (task.columns.label=COLUMN, corpus.weights.NAME=2) gets the prefix ++, by which Hydra adds it.
    """
    parser = OverridesParser.create()
    sweep = any(word in SWEEP for word in words)
    own_names = names_in(schema)
    result, value_of_flag = [], False
    for word in words:
        found = None if word.startswith("-") or value_of_flag else WORD.fullmatch(word)
        value_of_flag = word in FLAGS_WITH_A_VALUE
        result.append(_readable(parser, *found.groups(), own_names, sweep) if found else word)
    return result


def names_in(schema: type) -> list[str]:
    """The settings whose keys are names of the user's own: dotted keys of the dictionaries in `schema`."""
    return [path for path, hint in paths_of(schema) if typing.get_origin(_bare(hint)) is dict]


def with_names(values: dict[str, Any], schema: type) -> dict[str, Any]:
    """`values` with the names in those dictionaries decoded again: `readable` writes ə as %C9%99 for Hydra."""
    for path in names_in(schema):
        *above, last = path.split(".")
        place: Any = values
        for key in above:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(last), dict):
            place[last] = {unquote(key) if isinstance(key, str) else key: value for key, value in place[last].items()}
    return values


def _readable(parser: OverridesParser, sign: str, key: str, value: str, own_names: list[str], sweep: bool) -> str:
    if path := next((path for path in own_names if key.startswith(f"{path}.")), None):
        name = key[len(path) + 1 :]
        sign = sign or "++"
        if not re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII):  # letters that Hydra's keys cannot have: see with_names
            inner = value if _parses(parser, f"a={value}", False) else _quoted(value)
            return f"{sign}{path}={{{quote(name, safe='')}: {inner}}}"
    if _parses(parser, f"{sign}{key}={value}", sweep):
        return f"{sign}{key}={value}"
    if value[:1] in "[{":
        try:
            return f"{sign}{key}={_flow(yaml.safe_load(value))}"
        except yaml.YAMLError:
            pass
    return f"{sign}{key}={_quoted(value)}"


def _parses(parser: OverridesParser, word: str, sweep: bool) -> bool:
    try:
        override = parser.parse_override(word)
    except HydraException:
        return False
    # Outside a sweep a,b can only be a text; choice(...) and range(...) are left to Hydra's own message.
    return sweep or not (override.is_choice_sweep() and override.value().simple_form)


def told_apart(words: list[str], excluded: list[str]) -> list[str]:
    """What a sweep's words need beside them so that no two of its jobs share a folder, which is named by its words.

    Keys of no weight (device, threads, ...) are left out of the name, unless the sweep is over one of them.
    """
    parser, swept = OverridesParser.create(), set()
    for word in words if any(word in SWEEP for word in words) else []:
        if not word.startswith("-") and "=" in word and word.split("=")[0].lstrip("+") in excluded:
            try:
                override = parser.parse_override(word)
            except HydraException:  # which Hydra will say
                continue
            if override.is_sweep_override():
                swept.add(override.key_or_group)
    left = [key for key in excluded if key not in swept]
    return [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(left)}]"] if swept else []


def _quoted(text: str) -> str:
    """A text in Hydra's single quotes: \\' is a quote, and backslashes before a quote are doubled."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _flow(value: object) -> str:
    """A YAML value in Hydra's grammar: every text is quoted, keys are not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else _quoted(str(value))


def _bare(hint: object) -> object:
    return next((part for part in typing.get_args(hint) if typing.get_origin(part) is dict), hint)


def explain(error: Exception, words: list[str], config: DictConfig | None) -> str:
    """Hydra's error about the overrides in one line: which key or value, and what was meant. `config`: the composed config."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if found := re.search(
        r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", lines[0] if lines else ""
    ):
        key = found[1]
        known = list(_keys(config)) if config is not None else []
        if key in known:  # +key of a key that exists
            return f"+{key}: the key exists; write {key}=... without the plus."
        if new := renamed(key):
            return f"{key}: this key is now {new}."
        near = [path for path in known if path.rpartition(".")[0] == key.rpartition(".")[0]] or [
            p for p in known if "." not in p
        ]
        hint = did_you_mean(key, known)
        there = f" There are: {', '.join(sorted(near))}." if 0 < len(near) < 30 else ""
        return f"{key}: no such key.{hint}{there}"
    if "hydra/launcher/submitit" in (lines[0] if lines else ""):
        return (
            "launcher=slurm needs hydra-submitit-launcher. pip install -r requirements-extra.txt, or leave launcher=slurm out: "
            "the jobs then run here, one after another."
        )
    if found := re.match(r"In '[^']*': Could not find '([^/']+)/([^']+)'", lines[0] if lines else ""):
        options = [line for line in lines[1:] if re.fullmatch(r"[\w./-]+", line)]
        hint = did_you_mean(found[2], options)
        return f"{found[1]}={found[2]}: no such file in conf/{found[1]}.{hint} There are: {', '.join(options)}."
    return " ".join(lines)


def _keys(config: DictConfig, prefix: str = "") -> Iterable[str]:
    for key in config:
        yield f"{prefix}{key}"
        if (
            not OmegaConf.is_missing(config, key)
            and not OmegaConf.is_interpolation(config, key)
            and isinstance(config[key], DictConfig)
        ):
            yield from _keys(config[key], f"{prefix}{key}.")
