"""Writing models as Hugging Face directories: config.json, safetensors, tokenizer files."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from models.config import ModelConfig
from models.dtypes import dtype_name
from models.huggingface.checkpoint import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    all_finite,
    existing_directory,
)
from models.huggingface.config import config_to_json
from models.huggingface.layout import tensor_shapes, tensors
from models.parameters import Params, abstract
from models.paths import local_path
from models.small_files import check_regular, read_object_if_any
from models.text.tokenizer_files import TOKENIZER_FILES


def save_pretrained(
    params: Params,
    config: ModelConfig,
    path: str | os.PathLike[str],
    tokenizer_from: str | os.PathLike[str] | None = None,
    dtype: Any = None,
    max_shard_bytes: int = 5 * 2**30,
    texts: Mapping[str, str | None] | None = None,
) -> None:
    """Writes a model as a Hugging Face directory that transformers, and we, can load.

    The directory appears under its name only when it is complete, and an empty one is filled at
    once. A checkpoint that is already there is replaced; a directory with anything else in it is
    left alone.

    Args:
      params: as in `declare(config)`; every shard must be addressable from this process. The
        layout has no adapters: `models.merge` them first.
      path: directory to write.
      tokenizer_from: directory whose tokenizer and generation_config.json come along, and the
        special token ids of its config.json; by default those that `path` already has.
      dtype: what the arrays are cast to, as "bfloat16" or `jnp.bfloat16`; as they are by default.
      max_shard_bytes: weights beyond this many bytes are split over files, with an index. A
        single larger tensor has a file of its own.
      texts: further files by name, such as a model card, each in place of one that comes along;
        None keeps a file from coming along.

    Raises:
      ValueError: the parameters are not those of `config`, no family of transformers is, or there
        are adapters; a number is NaN or infinite, or becomes it in `dtype`; or a file that comes
        along is not a regular one.
      FileExistsError: `path` holds something that is not part of a checkpoint.

    Example:
      >>> import tempfile
      >>> from models.embedded import model_directory
      >>> from models.huggingface.checkpoint import load_pretrained
      >>> source = model_directory("embedded:student")
      >>> config, params = load_pretrained(source)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save_pretrained(params, config, f"{directory}/model", tokenizer_from=source)
      ...     again, _ = load_pretrained(f"{directory}/model")
      >>> again == config
      True
    """
    path, texts = local_path(path, "model"), dict(texts or {})
    for name in texts:
        ours = (CONFIG_FILE, INDEX_FILE, SINGLE_FILE, "", "..")
        if name != Path(name).name or name in ours:
            raise ValueError(f"texts: {name!r} is not a name that a further file may have.")
    dtype = None if dtype is None else dtype_name(dtype)
    config = config.replace(mesh=None)
    if config.lora is not None:
        raise ValueError("config.lora is set; models.merge the adapters into the base first.")
    _check_params(params, config)
    dtypes = {str(x.dtype) for x in jax.tree.leaves(params)}
    if dtype is None and len(dtypes) > 1:
        raise ValueError(f"Parameters have dtypes {sorted(dtypes)}; say which to save with dtype=.")
    dtype = dtype or dtypes.pop()
    _check_replaceable(path, set(texts))
    source = path if tokenizer_from is None else existing_directory(tokenizer_from)
    values = config_to_json(config, dtype, read_object_if_any(source / CONFIG_FILE))
    copied = [name for name in TOKENIZER_FILES if (source / name).exists() and name not in texts]
    for name in copied:
        check_regular(source / name)

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    scratch.mkdir()
    try:
        _write_json(scratch / CONFIG_FILE, values)
        for name in copied:
            shutil.copyfile(source / name, scratch / name)
        for name, text in texts.items():
            if text is not None:
                (scratch / name).write_text(text, encoding="utf-8")
        _write_tensors(params, config, dtype, scratch, max_shard_bytes)
        _move(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _check_params(params: Params, config: ModelConfig) -> None:
    arrays = flatten_dict(params, sep="/")
    expected = {name: x.shape for name, x in flatten_dict(abstract(config), sep="/").items()}
    given = {name: np.shape(x) for name, x in arrays.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise ValueError(
                f"Parameter {name!r} is {given.get(name, 'missing')}, but the config asks for "
                f"{expected.get(name, 'no such array')}."
            )
    for name, array in arrays.items():
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            raise ValueError(
                f"Parameter {name!r} has shards in other processes; gather it before saving."
            )


def _check_replaceable(path: Path, texts: set[str]) -> None:
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another path for the checkpoint.")
    for entry in sorted(path.iterdir()) if path.is_dir() else ():
        known = entry.name in (CONFIG_FILE, INDEX_FILE, *TOKENIZER_FILES, *texts)
        if not known and entry.suffix != ".safetensors":
            raise FileExistsError(
                f"{path} holds {entry.name!r}, which is not part of a checkpoint; choose another "
                "path, or remove it."
            )


def _write_json(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tensors(
    params: Params, config: ModelConfig, dtype: str, directory: Path, max_shard_bytes: int
) -> None:
    itemsize = np.dtype(dtype).itemsize
    sizes = {name: math.prod(shape) * itemsize for name, shape in tensor_shapes(config)}
    shards = _shards(sizes, max_shard_bytes)
    arrays = _arrays(params, config, dtype)
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        part = "" if len(shards) == 1 else f"-{i + 1:05}-of-{len(shards):05}"
        file = f"model{part}.safetensors"
        # transformers wants to be told that the layout is PyTorch's.
        save_file(dict(itertools.islice(arrays, len(names))), directory / file, {"format": "pt"})
        (directory / file).chmod((directory / CONFIG_FILE).stat().st_mode)  # not for us alone
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        _write_json(directory / INDEX_FILE, index)


def _shards(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Names of the tensors in every file, from the bytes of each, in their order."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _arrays(params: Params, config: ModelConfig, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the checkpoint, one at a time."""
    arrays = flatten_dict(params, sep="/")
    for name, layout, path, layer in tensors(config):
        array = np.asarray(arrays[path] if layer is None else arrays[path][layer])
        with np.errstate(over="ignore"):
            tensor = layout.to_tensor(array.astype(dtype))
        if not all_finite(tensor):
            raise ValueError(
                f"Parameter {path!r} holds numbers that are no finite ones of {dtype}."
            )
        yield name, tensor


def _move(scratch: Path, path: Path) -> None:
    """Puts a finished directory in its place; the one it replaces goes last."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.exists():
        scratch.rename(path)
        return
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.rename(old)
    try:
        scratch.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
