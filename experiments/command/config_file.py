"""`--config FILE[:ARG]` and `--config.FIELD=VALUE`, by the rules of ml_collections' flags."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """A config as the command line asks for it.

    Attributes:
      flag: the value of `--config`, FILE[:ARG].
      fields: of the config, with those set that `--config.FIELD=VALUE` names.
    """

    flag: str
    fields: ConfigDict

    @property
    def name(self) -> str:
        """`motab-smoke` of `configs/motab.py:smoke`."""
        file, _, arg = self.flag.partition(":")
        return f"{Path(file).stem}-{arg}" if arg else Path(file).stem

    def nearest(self, name: str) -> str | None:
        """The field that `name` was probably to be: its last part is most like that of `name`."""
        parent, _, last = name.rpartition(".")
        by_last: dict[str, list[str]] = {}
        for field in sorted(_names(self.fields), key=lambda field: field.count(".")):
            by_last.setdefault(field.rpartition(".")[2], []).append(field)
        found = difflib.get_close_matches(last, by_last, 1, cutoff=0.75)
        if not found:
            return None
        there = by_last[found[0]]
        beside = f"{parent}.{found[0]}"
        return beside if beside in there else there[0]


def _names(config: ConfigDict, before: str = "") -> list[str]:
    names = []
    for name, value in config.items():
        names.append(before + name)
        if isinstance(value, ConfigDict):
            names += _names(value, f"{before}{name}.")
    return names


def split_fields(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments that set fields of a config, as `--config.FIELD=VALUE`, and all others."""
    fields, rest, after = [], [], iter(arguments)
    number = re.compile(r"-[\d.]")
    pending = next(after, None)
    while pending is not None:
        argument, pending = pending, next(after, None)
        if not re.match(r"--(no)?config\.", argument):
            rest.append(argument)
            continue
        alone = "=" in argument or argument.startswith("--no") or pending is None
        if not alone and pending is not None and (pending[:1] != "-" or number.match(pending)):
            argument, pending = f"{argument}={pending}", next(after, None)
        fields.append(argument)
    return fields, rest


def read_config_file(flag: str, set_fields: Sequence[str]) -> ConfigFile:
    """The config that `flag`, FILE[:ARG], names, with fields set by `--config.FIELD=VALUE`.

    Raises:
      ValueError: the file or its variant is not there, it cannot be run, it has no such field, or a
        value does not fit; in a line.
    """
    file = Path(flag.partition(":")[0])
    if not file.is_file():
        raise ValueError(f"--config {flag}: there is no such file{_file_like(file)}")
    try:
        config = _parse([f"--config={flag}"], None)
    except Exception as error:  # whatever the file raises
        raise ValueError(f"--config {flag}: {_reason(error)}") from error
    whole = ConfigFile(flag, config)
    for argument in set_fields:
        field = re.sub(r"^--(no)?config\.", "", argument).partition("=")[0]
        try:
            config_path.get_type(field, config)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            near = whole.nearest(field)
            hint = f"; did you mean --config.{near}?" if near else "."
            raise ValueError(f"{argument}: {flag} has no such field{hint}") from None
    try:
        return ConfigFile(flag, _parse(set_fields, config))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).removeprefix("flag ").split()).rstrip(".")
        raise ValueError(f"{reason}.") from error


def _parse(arguments: Sequence[str], config: ConfigDict | None) -> ConfigDict:
    """The value of `--config` under flags of its own; those of the process are left alone."""
    values, line = flags.FlagValues(), ["command", *arguments]
    if config is None:
        sys.modules.pop("config_config", None)  # or names of the file before would still be there
        holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=line)
    else:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=line
        )
    values(line)
    # What stands for a file that raised an OSError raises it here.
    if not hasattr(holder.value, "is_locked"):
        raise TypeError(f"get_config returned no ConfigDict but {holder.value!r:.60}")
    return holder.value


def _reason(error: Exception) -> str:
    """An exception of a config file in a line. ml_collections puts the trace into some messages."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}."
    if isinstance(error, OSError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    raised = re.findall(r"^(?:TypeError|ValueError): (.*)", str(error), re.MULTILINE | re.DOTALL)
    text = raised[-1] if raised else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _file_like(file: Path) -> str:
    there = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
    found = difflib.get_close_matches(str(file), there, 1)
    return f"; did you mean {found[0]}?" if found else "."
