"""Checkpoints of a run: the state on the devices and the little that lives on the host.

A checkpoint is one orbax directory named by its step. It is written in the background and appears
under its name only when whole, so a kill leaves the one before in force. It carries checksums of
its arrays and of what lies beside them. What later turns out unreadable, or not what was written,
is put aside as `STEP.corrupt`, with a warning, and the one before is used.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from experiments.checkpoints.checksums import checksums
from experiments.checkpoints.files import (
    UnreadableCheckpoint,
    checkpoint_steps,
    find_step,
    read_accuracy,
    read_run,
    reading,
    sealed,
)
from experiments.checkpoints.orbax_log import quiet
from experiments.machine.processes import any_process, first_does

log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A checkpoint read back: `state` on the devices, `run_state` on the host, and its step."""

    state: Any
    run_state: dict[str, Any]
    step: int


class Checkpoints:
    """The checkpoints of one run, for the one process that writes them.

    Args:
      directory: where they go; made if it is not there.
      max_to_keep: how many of the latest stay.
      keep_best: whether the one with the highest accuracy stays too, however old. Among equals
        the latest counts.

    Raises:
      ValueError: `max_to_keep` is not positive; or a checkpoint that is there has no checksums.
    """

    def __init__(
        self, directory: str | os.PathLike[str], max_to_keep: int = 2, keep_best: bool = True
    ):
        if max_to_keep < 1:
            raise ValueError(f"max_to_keep={max_to_keep} must be at least 1.")
        self.directory = Path(directory).expanduser().resolve()
        first_does(self._clean_up)
        policies: list[Any] = [LatestN(max_to_keep)]
        if keep_best:
            policies.append(
                BestN(
                    get_metric_fn=lambda metrics: metrics["accuracy"],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                best_fn=lambda metrics: metrics["accuracy"],
                preservation_policy=AnyPreservationPolicy(policies),
            ),
        )

    def _clean_up(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            log.warning("%s was not finished when its run ended: removing it.", path)
            _remove(path)
        for step in checkpoint_steps(self.directory):
            try:
                read_accuracy(self.directory, step)
            except UnreadableCheckpoint as error:
                self._set_aside(step, error)

    def save(
        self, step: int, state: Any, run_state: Mapping[str, Any], accuracy: float | None = None
    ) -> None:
        """Copies the state off the devices and writes it in the background.

        The caller may donate `state` to the next step at once. Waits for the save before this one.

        Args:
          step: later than every step saved so far.
          state: a pytree of arrays.
          run_state: what a resumed run needs on the host, as JSON: the data iterator, the seed.
          accuracy: on the validation set, if it was measured here.

        Raises:
          ValueError: a checkpoint as late as this one exists.
          TypeError: `run_state` does not come back from JSON as it went in.
          OSError: this checkpoint, or the one before, could not be written.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise ValueError(f"Checkpoint {step} is not after {latest}, the latest there is.")
        measured = accuracy is not None and math.isfinite(accuracy)
        run = sealed(
            {
                "step": step,
                "run_state": _json(run_state),
                "accuracy": float(accuracy) if measured else None,  # type: ignore[arg-type]
                "checksums": checksums(state),
            }
        )
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run)
                ),
                metrics={"accuracy": run["accuracy"]} if measured else None,
            )

    def replace(
        self, step: int, state: Any, run_state: Mapping[str, Any], accuracy: float | None
    ) -> None:
        """Writes the latest checkpoint anew, validated. Until then the one before counts."""
        self.wait()
        self._manager.delete(step)
        self.save(step, state, run_state, accuracy)

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """The latest checkpoint that can be read, or None. The unreadable are put aside.

        Args:
          abstract_state: the state's `jax.ShapeDtypeStruct`s, see `abstract`.

        Raises:
          ValueError: the checkpoint is of a state with other arrays.
        """
        while (step := self.latest_step()) is not None:
            restored, damage = None, UnreadableCheckpoint("Another process could not read it.")
            try:
                restored = self.restore(step, abstract_state)
            except UnreadableCheckpoint as error:
                damage = error
            if not any_process(restored is None):
                return restored
            first_does(functools.partial(self._set_aside, step, damage))
            self._manager.reload()
        return None

    def restore(self, which: int | str, abstract_state: Any) -> Restored:
        """One checkpoint, bit for bit, on the shardings of `abstract_state`.

        Args:
          which: a step, "final" (the latest) or "best".
          abstract_state: the state's `jax.ShapeDtypeStruct`s, see `abstract`.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          UnreadableCheckpoint: it is damaged.
          ValueError: it is of a state with other arrays; they are named.
        """
        self.wait()
        step = find_step(self.directory, which)
        target = jax.tree.map(_placed, abstract_state)
        path = self.directory / str(step)
        with reading(path):
            saved = self._manager.item_metadata(step).state
        if saved is not None:
            _check_fit(saved.tree, target, path)
        run = read_run(path)
        with reading(path):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
            )
        _check_sums(restored.state, run, path)
        return Restored(restored.state, run["run_state"], step)

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint, one being written included."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest accuracy, or None where none has one."""
        return self._manager.best_step()

    def wait(self) -> None:
        """Returns when the save under way is on disk.

        Raises:
          OSError: it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the background threads."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):
                self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with quiet():
                yield
        except Exception as error:
            self._manager.reload()
            raise OSError(
                errno.EIO,
                f"A checkpoint could not be written to {self.directory}; the latest whole one is "
                f"{self.latest_step()}. {type(error).__name__}: {error}",
            ) from error

    def _set_aside(self, step: int, error: Exception) -> None:
        path, aside = self.directory / str(step), self.directory / f"{step}.corrupt"
        log.warning("Skipping the damaged checkpoint %s, now %s: %s", path, aside.name, error)
        _remove(aside)
        os.replace(path, aside)


def _remove(path: Path) -> None:
    """A directory with all that it holds; or a link or a file, which is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def abstract(state: Any) -> Any:
    """Shapes, dtypes and shardings of a state's arrays, as `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def restore_params(directory: str | os.PathLike[str], which: int | str) -> tuple[Any, int]:
    """The parameters alone, as nested dicts of arrays on one device, and their step.

    Only reads, and so may be called while the run goes on.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      UnreadableCheckpoint: it is damaged, or holds no parameters.
    """
    step = find_step(directory, which)
    path = Path(directory).resolve() / str(step)
    with reading(path), ocp.PyTreeCheckpointer() as checkpointer:
        saved = checkpointer.metadata(path / "state").item_metadata
        target = {"params": jax.tree.map(_placed, saved.tree["params"])}
        arguments = ocp.checkpoint_utils.construct_restore_args(target)
        restored = checkpointer.restore(
            path / "state",
            args=ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True),
        )
    _check_sums(restored, read_run(path), path)
    return restored["params"], step


def _check_sums(restored: Any, run: Mapping[str, Any], path: Path) -> None:
    """Raises where arrays, perhaps not all, are not those that were saved."""
    wrong = [
        name for name, found in checksums(restored).items() if run["checksums"].get(name) != found
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UnreadableCheckpoint(
            f"{path}: arrays are not what was saved: {', '.join(wrong[:5])}{more}."
        )


def _placed(x: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding; the first device where no sharding of this process is given."""
    place = getattr(x, "sharding", None)
    if not isinstance(place, jax.sharding.Sharding):
        place = SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def _check_fit(saved: Any, target: Any, path: Path) -> None:
    """Raises where a checkpoint and a state differ, for orbax would cast and cut in silence."""

    def arrays(tree: Any) -> dict[str, str]:
        return {
            jax.tree_util.keystr(key, simple=True, separator="."): f"{x.dtype}{list(x.shape)}"
            for key, x in jax.tree_util.tree_leaves_with_path(tree)
        }

    there, here = arrays(saved), arrays(target)
    wrong = [
        f"{name}: {there.get(name, 'absent')} in the checkpoint, {here.get(name, 'absent')} now"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError(f"{path} is of another state:\n  " + "\n  ".join(wrong[:10]) + more)


def _json(run_state: Mapping[str, Any]) -> dict[str, Any]:
    """`run_state`, once it is sure to come back from JSON as it goes in."""
    try:
        same = json.loads(json.dumps(run_state, allow_nan=False)) == run_state
    except ValueError as error:
        raise TypeError(f"run_state is not JSON: {error}") from error
    if not same:
        raise TypeError(
            "run_state does not come back from JSON as it went in: tuples become lists, and keys "
            f"that are not strings become strings. {run_state}"
        )
    return dict(run_state)
