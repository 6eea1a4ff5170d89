"""Flags of a command, read from a dataclass, so that name, type, default and meaning are said once.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        workdir: Annotated[Path, Flag("the run's directory", positional=True)]
        n: Annotated[Count, Flag("samples per problem")] = 8

A field may be text, a number, a `Path`, a bool (given, it is true), a tuple of these, or one of
these or None. A field without a default has to be given. Ranges are those of `models.checks`. A
field without a `Flag` has its meaning from the `Attributes` of its class.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from experiments.command.config_file import ConfigFile, read_config_file, split_fields
from experiments.machine.exit_codes import WRONG_USE

SettingsT = TypeVar("SettingsT")


@dataclasses.dataclass(frozen=True)
class Flag:
    """What the command line has to know of a field beside its type and default.

    Attributes:
      meaning: one line for `--help`.
      metavar: what stands for the value there.
      choices: the values that there are; any by default.
      positional: given without its name.
      separator: between the items of a tuple that come as one value, `--seeds 0,1`; without it they
        are values of their own, `--data A B`.
    """

    meaning: str
    metavar: str | None = None
    choices: Sequence[str] | None = None
    positional: bool = False
    separator: str = ""


def read_flags(
    settings: type[SettingsT], program: str, about: str, arguments: Sequence[str] | None = None
) -> SettingsT:
    """An instance of the dataclass `settings` from a command line.

    Args:
      settings: its fields have a `Flag` each. One of type `ConfigFile` takes `--config FILE[:ARG]`
        and `--config.FIELD=VALUE`.
      program: how the command is called.
      about: what it does.
      arguments: of the command line; this process's by default.

    Raises:
      SystemExit: with 0 after `--help`; with 2 where an argument is stray, unknown, missing or
        wrong, which a line on stderr names.
    """
    fields = flags_of(settings)
    parser = _Parser(program, about, fields)
    given, values = parser.read(arguments)
    for name, field in fields.items():
        value = getattr(given, name)
        if value is None:
            value = None if field.default is dataclasses.MISSING else field.default
        elif field.many and field.flag.separator:
            value = parser.items(name, value, field)
        elif field.many:
            value = tuple(value)
        values.setdefault(name, value)
    for name, field in fields.items():
        if field.kind is Path:
            parser.check_paths(field, values[name])
        if field.ranged:
            from models.checks import require

            try:
                require(field.shown, values[name], field.hint)
            except ValueError as error:
                parser.error(str(error))
    try:
        return settings(**values)
    except ValueError as error:
        parser.error(str(error))


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field of the settings. `kind` is its type, or that of its items where there are `many`."""

    name: str
    flag: Flag
    hint: Any
    kind: Any
    many: bool
    default: Any
    ranged: bool

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def shown(self) -> str:
        return self.name.upper() if self.flag.positional else f"--{self.name}"


def flags_of(settings: Any) -> dict[str, _Field]:
    """The flags of a settings dataclass, by name."""
    hints = get_type_hints(settings, include_extras=True)
    found = {}
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        base, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        flag = next((e for e in extras if isinstance(e, Flag)), None) or _documented(
            settings, field
        )
        members = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
        (kind,) = (m for m in members if m is not types.NoneType)
        many = get_origin(kind) is tuple
        kind = get_args(kind)[0] if many else kind
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        ranged = any(not isinstance(e, Flag) for e in extras)
        found[field.name] = _Field(field.name, flag, hint, kind, many, field.default, ranged)
    return found


def _documented(settings: Any, field: dataclasses.Field) -> Flag:
    """A flag of a field that its class explains under `Attributes`."""
    from experiments.config.describe import meanings

    return Flag(meanings(settings)[field.name])


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


_KINDS: Mapping[Any, Callable[[str], Any]] = {
    int: int,
    float: _finite,
    str: str,
    Path: Path,
    ConfigFile: str,
}
_WORDS = {int: "a whole number", float: "a number"}


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """argparse's, with errors in a line, and with what was probably meant."""

    def __init__(self, program: str, about: str, fields: Mapping[str, _Field]):
        super().__init__(program, description=about, formatter_class=_Help, allow_abbrev=False)
        self._fields = fields
        self._config = next((n for n, f in fields.items() if f.kind is ConfigFile), None)
        for name, field in fields.items():
            self.add_argument(name if field.flag.positional else f"--{name}", **_options(field))
            if name == self._config:
                self.add_argument(
                    f"--{name}.FIELD", metavar="VALUE", help="sets a field of the config"
                )
        # What is missing is said after what is wrong: the one is often the other, misspelt.
        self._needed = [action for action in self._actions if action.required]
        self._need(False)

    def _need(self, required: bool) -> None:
        for action in self._needed:
            action.required = required

    def format_help(self) -> str:
        """With what has to be given."""
        self._need(True)
        text = super().format_help()
        self._need(False)
        return text

    def _plain(self, argument: str) -> str:
        """`--peer_python=x` of `--peer-python=x`: either is usual."""
        name, equals, value = argument.partition("=")
        plain = name[2:].replace("-", "_")
        known = name.startswith("--") and plain in self._fields
        return f"--{plain}{equals}{value}" if known else argument

    def read(
        self, arguments: Sequence[str] | None
    ) -> tuple[argparse.Namespace, dict[str, ConfigFile]]:
        """What was given, None where nothing was; and the config, where there is one."""
        if arguments is None:
            arguments = sys.argv[1:]
        set_fields: list[str] = []
        rest = [self._plain(str(argument)) for argument in arguments]
        if self._config is not None:
            set_fields, rest = split_fields(rest)
        given, strays = self.parse_known_args(rest)
        # A list would swallow what was to be a flag; some lists are of NAME=VALUE.
        lists = [f for f in self._fields.values() if f.flag.positional or f.many]
        for field in lists:
            values = (
                getattr(given, field.name) or () if field.many else [getattr(given, field.name)]
            )
            if field.flag.separator or "=" in (field.flag.metavar or ""):
                continue
            for text in map(str, values):
                name, equals, _ = text.partition("=")
                if equals and self._named(name) is not None:
                    strays.append(text)
        if strays:
            self.error(self._stray(strays[0], given))
        missing = [f for n, f in self._fields.items() if f.required and getattr(given, n) is None]
        if missing:
            self.error(f"{missing[0].shown} is missing: {missing[0].flag.meaning}.")
        if self._config is None:
            return given, {}
        file = getattr(given, self._config)
        try:
            return given, {self._config: read_config_file(file, set_fields)}
        except ValueError as error:
            self.error(str(error))

    def check_paths(self, field: _Field, value: Any) -> None:
        """Ends where a path begins with a scheme, as `gs://bucket` does."""
        from models.paths import local_path

        for path in value if field.many else (value,):
            if path is not None:
                try:
                    local_path(path, field.shown)
                except ValueError as error:
                    self.error(str(error))

    def items(self, name: str, text: str, field: _Field) -> tuple[Any, ...]:
        """The items of a value such as `0,1`."""
        found = []
        for item in filter(None, (part.strip() for part in text.split(field.flag.separator))):
            try:
                found.append(_KINDS[field.kind](item))
            except ValueError:
                self.error(f"--{name}={text}: {item!r} is not {_WORDS[field.kind]}.")
            if field.flag.choices and found[-1] not in field.flag.choices:
                self.error(f"--{name}={text}: {_choose(item, field.flag.choices)}")
        return tuple(found)

    def error(self, message: str) -> NoReturn:
        """Ends with what is wrong in a line."""
        self.exit(WRONG_USE, f"{self.prog}: {message} --help lists the flags.\n")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            words = _WORDS[self._fields[action.dest].kind]
            raise argparse.ArgumentError(action, f"{arg_string!r} is not {words}.") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, _choose(str(value), list(action.choices)))

    def _named(self, name: str) -> str | None:
        """The flag that a name without dashes, or with wrong ones, stands for."""
        name = name.replace("-", "_")
        if self._config is not None and name.startswith(f"{self._config}."):
            return name
        by_name = {n.replace("-", "_"): n for n, f in self._fields.items()}
        return by_name.get(name)

    def _stray(self, text: str, given: argparse.Namespace) -> str:
        """What to say about an argument that nobody takes."""
        bare = text.lstrip("-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}")
        name, equals, _ = bare.partition("=")
        value = bare[len(name) :]
        kind = "there is no such flag" if text.startswith("--") else "this argument is stray"
        known = self._named(name)
        if known is not None and (known != name or text != f"--{bare}"):
            return f"{text}: {kind}; did you mean --{known}{value}?"
        config = None
        if self._config is not None and getattr(given, self._config):
            try:
                config = read_config_file(getattr(given, self._config), [])
            except ValueError:
                config = None
        if config is not None and equals and (field := config.nearest(name)):
            return f"{text}: {kind}; did you mean --{self._config}.{field}{value}?"
        names = [n for n, f in self._fields.items() if not f.flag.positional]
        if near := difflib.get_close_matches(name.replace("-", "_"), names, 1):
            return f"{text}: {kind}; did you mean --{near[0]}{value}?"
        if self._config is not None and re.search(r"\.py(:|$)", bare):
            return f"{text}: {kind}; did you mean --{self._config} {bare}?"
        return f"{text}: {kind}."


def _options(field: _Field) -> dict[str, Any]:
    """What argparse has to know of a field."""
    meaning = field.flag.meaning
    if field.kind is not bool and field.default not in (dataclasses.MISSING, None, "", ()):
        default = field.default
        joined = (field.flag.separator or " ").join(map(str, default)) if field.many else default
        meaning += f" (default: {joined})"
    elif field.required and not field.flag.positional:
        meaning += " (required)"
    options: dict[str, Any] = {"help": meaning.replace("%", "%%"), "default": None}
    if field.kind is bool:
        return {**options, "action": "store_true"}
    options["metavar"] = field.flag.metavar
    if field.many and field.flag.separator:
        options["type"] = str
    else:
        options["type"] = _KINDS[field.kind]
        options["choices"] = field.flag.choices
        if field.many:
            options |= {"nargs": "+" if field.required else "*", "action": "extend"}
    if field.flag.positional:
        options["metavar"] = field.flag.metavar or field.name.upper()
    else:
        options["required"] = field.required
    return options


def _choose(value: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, choices, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{value!r} is not known; {hint}choose among {', '.join(choices)}."
