"""TensorBoard and Weights & Biases beside metrics.jsonl, which stays the truth.

When a run starts or goes on, what its log holds is told anew, so that a resumed run has every point
once: TensorBoard's files and an offline W&B run are written afresh, and an online W&B run is not
  told
again what it has (resumed steps are bit for bit the same). The packages come with the extra
[tracking].
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import importlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from experiments.config.sections import TrackingSettings

TENSORBOARD = "tensorboard"
_HTML = {"student": "#0072b2", "flawed": "#c65b00", "revision": "#7a4fa3", "teacher": "#007a5a"}


class Tracker(Protocol):
    """Something that is told what a run logs."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name."""
        ...

    def trajectories(self, records: list[Mapping[str, Any]], step: int) -> None:
        """Records as in trajectories.jsonl."""
        ...

    def close(self, failed: bool) -> None:
        """The last call."""
        ...


class Trackers:
    """All that the settings ask for, as one. Use as a context manager.

    Args:
      config: the run's, as plain dicts, for W&B.
      workdir: the run's directory.
      metrics, trajectories: what its logs hold already.

    Raises:
      ValueError: a package is not installed.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        config: Mapping[str, Any],
        workdir: Path,
        metrics: Iterable[Mapping[str, Any]] = (),
        trajectories: Iterable[Mapping[str, Any]] = (),
    ):
        self._trackers: list[Tracker] = []
        packages = require(settings)
        if settings.tensorboard:
            self._trackers.append(TensorBoard(packages["tensorboardX"], workdir / TENSORBOARD))
        if settings.wandb != "off":
            self._trackers.append(WeightsAndBiases(packages["wandb"], settings, config, workdir))
        if self._trackers:
            self._tell_anew(list(metrics), list(trajectories))

    def _tell_anew(
        self, metrics: list[Mapping[str, Any]], trajectories: list[Mapping[str, Any]]
    ) -> None:
        # In the order of steps: W&B goes forward only.
        steps = sorted({r["step"] for r in [*metrics, *trajectories]})
        for step in steps:
            for record in metrics:
                if record["step"] == step:
                    self.log(record)
            self.log_trajectories([t for t in trajectories if t["step"] == step])

    def log(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if self._trackers:
            values = scalars(record)
            for tracker in self._trackers:
                tracker.scalars(values, record["step"])

    def log_trajectories(self, records: list[Mapping[str, Any]]) -> None:
        """Lines of trajectories.jsonl, of one step."""
        if records:
            for tracker in self._trackers:
                tracker.trajectories(records, records[0]["step"])

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        with contextlib.ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close, kind is not None)


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl: `train/loss`, `after/test/accuracy`, and so on."""
    prefix = record["kind"]
    if prefix == "evaluation":
        prefix = f"{record['name']}/{record['data']}"
    found: dict[str, float] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                visit(f"{name}/{key}", item)
        elif isinstance(value, list | tuple):
            for key, item in zip(("low", "high"), value, strict=False):
                visit(f"{name}/{key}", item)
        else:
            with contextlib.suppress(TypeError, ValueError):  # a name, or nothing
                found[name] = float(value)

    for name, value in record.items():
        if name not in ("step", "kind", "name", "data"):
            visit(f"{prefix}/{name}", value)
    return found


class TensorBoard:
    """Event files, written anew."""

    def __init__(self, package: ModuleType, directory: Path):
        for file in directory.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = package.SummaryWriter(str(directory))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def trajectories(self, records: list[Mapping[str, Any]], step: int) -> None:
        """Texts, each part behind the name of who wrote it (TensorBoard shows no colours)."""
        for number, record in enumerate(records):
            text = "".join(
                f"**{part['source']}**\n\n{_indented(part['text'])}\n\n" for part in record["parts"]
            )
            self._writer.add_text(
                f"trajectories/{number}", f"{_indented(record['prompt'])}\n\n{text}", step
            )

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self._writer.close()


def _indented(text: str) -> str:
    """As Markdown shows it letter by letter."""
    return "\n".join(f"    {line}" for line in text.splitlines())


class WeightsAndBiases:
    """A run whose id is its workdir's, so that a resumed run goes on in the same one."""

    def __init__(
        self,
        package: ModuleType,
        settings: TrackingSettings,
        config: Mapping[str, Any],
        workdir: Path,
    ):
        self._package = package
        name = settings.name or workdir.name
        run_id = hashlib.blake2b(str(workdir.resolve()).encode(), digest_size=8).hexdigest()
        directory = workdir / "wandb"
        directory.mkdir(exist_ok=True)
        if settings.wandb == "offline":
            for old in directory.glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(old)
        self._run = package.init(
            project=settings.project,
            name=name,
            id=run_id,
            dir=str(workdir),
            config=dict(config),
            mode=settings.wandb,
            resume="allow",
            settings=package.Settings(silent=True, console="off", save_code=False),
        )
        # What an online run has been told already. An offline one begins anew, with nothing.
        self._first = self._run.step if settings.wandb == "online" else 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        if step >= self._first:
            self._run.log(dict(values), step=step)

    def trajectories(self, records: list[Mapping[str, Any]], step: int) -> None:
        """Texts in the colours of their writers. (Cells of a W&B table would lose them offline.)"""
        if step >= self._first:
            page = self._package.Html("".join(map(_coloured, records)), inject=False)
            self._run.log({"trajectories": page}, step=step)

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=int(failed))


def _coloured(record: Mapping[str, Any]) -> str:
    spans = "".join(
        f'<span style="color:{_HTML.get(part["source"], "inherit")}" title="{part["source"]}">'
        f"{html.escape(part['text'])}</span>"
        for part in record["parts"]
    )
    style = "font-family:monospace;white-space:pre-wrap;margin-bottom:1em"
    return f'<div style="{style}"><b>{html.escape(str(record["prompt"]))}</b>\n\n{spans}</div>'


def require(settings: TrackingSettings) -> dict[str, ModuleType]:
    """The packages that the settings ask for, by name.

    Raises:
      ValueError: one is not installed.
    """
    wanted = {
        "tensorboardX": settings.tensorboard and "tracking.tensorboard=True",
        "wandb": settings.wandb != "off" and f"tracking.wandb={settings.wandb!r}",
    }
    found = {}
    for package, field in wanted.items():
        if field:
            try:
                found[package] = importlib.import_module(package)
            except ImportError as error:
                raise ValueError(
                    f"{field} needs the package {package}, which is not installed: "
                    'pip install -e ".[tracking]", or switch it off.'
                ) from error
    return found
