"""What a study consists of: its arms, its rules, and the config of every run."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import configs
from experiments.compare.settings import Study
from experiments.config.data_sections import DataSets
from experiments.config.read import read_config
from experiments.config.reading import nearest
from experiments.workdir.outcome import TEST_SETS
from experiments.workdir.workdir import config_differences, plain

# What two arms must share for their difference to be the method's.
SAME = (
    "student",
    "teacher",
    "prompt",
    "evaluation",
    "data.validation",
    "data.test",
    "data.long",
    *(f"data.train.{name}" for name in ("name", "size", "seed", "min_steps", "max_steps")),
)
# Fixed before the first run; a directory belongs to one set of rules. Arms may be added later.
RULES = (
    "seeds",
    "selection_seed",
    "learning_rates",
    "checkpoint",
    "updates",
    "tokens_per_update",
    "batch_size",
    "shared",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study, read and checked.

    Attributes:
      arms: the config of every selected arm, before seed and learning rate.
      seeds: the selected ones.
    """

    study: Study
    arms: dict[str, ConfigDict]
    seeds: tuple[int, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid of learning rates."""
        return self.study.learning_rates

    @property
    def best(self) -> bool:
        """Whether the best checkpoint on validation counts, and not the final one."""
        return self.study.checkpoint == "best"

    def rules(self) -> dict[str, Any]:
        """What is fixed before the first run."""
        return {name: plain(getattr(self.study, name)) for name in RULES}

    def measuring_config(self, arm: str) -> ConfigDict:
        """What an arm's batch size is measured with."""
        return self.selection_config(arm, self.rates[0], self.study.batch_size)

    def selection_config(self, arm: str, rate: float, batch_size: int) -> ConfigDict:
        """A run that helps to choose the learning rate. It sees no test set."""
        return without_tests(self._config(arm, self.study.selection_seed, rate, batch_size))

    def config(self, arm: str, seed: int, rate: float, batch_size: int) -> ConfigDict:
        """A run that counts.

        Where the best checkpoint counts, the run itself sees no test set either: it would measure
        the final one.
        """
        config = self._config(arm, seed, rate, batch_size)
        return without_tests(config) if self.best else config

    def test_data(self, arm: str) -> DataSets:
        """The data sets of an arm, tests included."""
        return read_config(self.arms[arm]).data

    def _config(self, arm: str, seed: int, rate: float, batch_size: int) -> ConfigDict:
        config = copy.deepcopy(self.arms[arm])
        config.seed = seed
        config.batch_size = batch_size
        config.optimizer.learning_rate = rate
        return config.lock()


def selection_directory(workdir: Path, arm: str, rate: float) -> Path:
    """Where a run that helps to choose the learning rate lives."""
    return workdir / arm / f"rate-{rate:g}"


def seed_directory(workdir: Path, arm: str, seed: int) -> Path:
    """Where a run that counts lives."""
    return workdir / arm / f"seed-{seed}"


def without_tests(config: ConfigDict) -> ConfigDict:
    """The config with its test sets switched off."""
    config = copy.deepcopy(config)
    for name in TEST_SETS:
        if name in config.data:
            config.data[name].name = ""
    return config


def make_plan(
    study: Study, arms: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> Plan:
    """Loads a study's arms and checks all that can be known before the first run.

    Args:
      arms, seeds: which of the study's; all by default.

    Raises:
      ValueError: names the field that is wrong, or what makes two arms incomparable.
    """
    chosen = _chosen("arms", arms, study.arms)
    loaded = {name: load_arm(study, name) for name in chosen}
    _check_same(loaded)
    if study.checkpoint == "best":
        for name, config in loaded.items():
            if not config.checkpoint.keep_best:
                raise ValueError(f"checkpoint=best: arm {name} has checkpoint.keep_best=False.")
    return Plan(study, loaded, tuple(_chosen("seeds", seeds, study.seeds)))


def load_arm(study: Study, name: str) -> ConfigDict:
    """An arm's config: its file's, then what the study shares, then what the arm sets itself.

    Raises:
      ValueError: the file, the variant or a field does not exist.
    """
    arm = study.arms[name]
    try:
        config = load_config(arm.config, arm.arg)
        config.steps, config.batch_size = study.updates, study.batch_size
        override(config, study.shared, "shared")
        override(config, arm.set, f"arms.{name}.set")
        read_config(config)  # what is wrong with it shows before any run
    except (TypeError, ValueError) as error:
        raise ValueError(f"Arm {name} ({arm.config}): {error}") from error
    return config


def load_config(file: str, arg: str) -> ConfigDict:
    """The config that a file of the `configs` package makes of `arg`.

    Raises:
      ValueError: the file is not of that package, so that a study could run any code; or it, or
        the variant, does not exist.
    """
    root = Path(configs.__path__[0]).resolve()
    path = (root.parent / file).resolve()
    if path.suffix != ".py" or not path.is_relative_to(root):
        raise ValueError(f"config={file!r} is not a file of configs/.")
    if not path.is_file():
        raise ValueError(f"config={file!r}: there is no such file.")
    module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
    return importlib.import_module(module).get_config(arg)


def override(config: ConfigDict, fields: Mapping[str, Any], where: str) -> None:
    """Sets nested fields, each of which must exist.

    Raises:
      ValueError: a field does not exist, or takes another type.
    """
    for name, value in fields.items():
        path = f"{where}.{name}"
        if name not in config:
            near = nearest(name, config)
            raise ValueError(
                f"{path}: the config has no such field. The nearest is {where}.{near}."
            )
        if isinstance(config[name], ConfigDict):
            if not isinstance(value, Mapping):
                raise ValueError(f"{path} must be a group of fields, not {value!r}.")
            override(config[name], value, path)
            continue
        try:
            config[name] = value
        except TypeError as error:
            raise ValueError(f"{path}={value!r}: {error}") from error


def _check_same(arms: Mapping[str, ConfigDict]) -> None:
    """Raises where two arms differ in what must be the same."""
    fields = {name: config.to_dict() for name, config in arms.items()}
    for path in SAME:
        found = {arm: _at(config, path) for arm, config in fields.items()}
        # An arm without a teacher, or with data that have no such option, has nothing to differ in.
        found = {arm: value for arm, value in found.items() if value is not None}
        for arm, value in found.items():
            first = next(iter(found))
            differences = config_differences({path: plain(found[first])}, {path: plain(value)})
            if differences:
                different = differences[0].partition(":")[0]
                raise ValueError(
                    f"Arms {first} and {arm} differ in {different}, which must be the same. Set it "
                    "in `shared`."
                )


def _at(fields: Any, path: str) -> Any:
    for name in path.split("."):
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields


def _chosen(field: str, wanted: Sequence[Any] | None, there: Iterable[Any]) -> list[Any]:
    known = list(there)
    for name in wanted or ():
        if name not in known:
            raise ValueError(f"--{field}: {name!r} is not in the study; {_names(known)}.")
    return [name for name in known if not wanted or name in wanted]


def _names(known: Iterable[Any]) -> str:
    return f"there are {', '.join(map(str, known))}"
