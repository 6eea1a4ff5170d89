"""Reading models from Hugging Face directories: config.json and safetensors."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open

from models.config import ModelConfig
from models.dtypes import dtype_name
from models.huggingface.config import config_from_json
from models.huggingface.layout import Index, TensorLayout, tensor_layouts, tensor_shapes
from models.parameters import Params, shardings
from models.paths import local_path
from models.sharding import Rules
from models.small_files import read_object

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPE_CODES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_EXPONENTS = {
    "float32": (np.uint32, np.uint32(0x7F800000)),
    "bfloat16": (np.uint16, np.uint16(0x7F80)),
    "float16": (np.uint16, np.uint16(0x7C00)),
}
_AT_ONCE = 2**22
# Listed at most, when many tensors are wrong.
_SHOWN = 5


def load_config(path: str | os.PathLike[str]) -> ModelConfig:
    """The `ModelConfig` of a Hugging Face directory.

    Raises:
      FileNotFoundError: there is no such directory, or no config.json in it.
      ValueError: a field is malformed or not supported; names the file, field and value.

    Example:
      >>> from models.embedded import model_directory
      >>> config = load_config(model_directory("embedded:student"))
      >>> config.family, config.vocab_size, config.num_layers
      ('qwen3', 98, 3)
    """
    file = existing_directory(path) / CONFIG_FILE
    return config_from_json(read_object(file), str(file))


def load_pretrained(
    path: str | os.PathLike[str],
    dtype: Any = None,
    mesh: Mesh | None = None,
    rules: Rules | None = None,
    stacked: bool = True,
) -> tuple[ModelConfig, Params]:
    """Reads a Qwen3, Qwen2 or Llama model from a local Hugging Face directory.

    Names, shapes and dtypes of all tensors are checked before any is read, and that all numbers are
    finite as they are read. Only safetensors are read, never pickles.

    Args:
      path: directory with config.json and model.safetensors, or an index and its shards.
      dtype: what the parameters are cast to, as "bfloat16" or `jnp.bfloat16`; as on disk by
        default. `config.dtype`, which the model computes in, is set to the same.
      mesh: places every array by its `NamedSharding`; a process reads only its own parts.
      rules: logical-axis rules on that mesh; `ModelConfig`'s by default.
      stacked: False gives `layers` as a list of layers. A model that only writes and reads text is
        then held once: decoding reads the list, and would copy stacked layers into one. Not on a
        mesh.

    Returns:
      The config (with `dtype`, `mesh` and `rules` set) and the parameters, as in `declare`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: config, index, header or tensors are malformed, or not what the config asks for; a
        tensor holds NaN or infinite numbers, or such as `dtype` cannot hold; a list of layers is
        asked for on a mesh.

    Example:
      >>> from models.embedded import model_directory
      >>> config, params = load_pretrained(model_directory("embedded:student"), dtype="bfloat16")
      >>> config.dtype, params["embed"].dtype
      ('bfloat16', dtype(bfloat16))
    """
    if mesh is not None and not stacked:
        raise ValueError("stacked=False with a mesh: layers are placed on it stacked.")
    dtype = None if dtype is None else dtype_name(dtype)
    directory = existing_directory(path)
    config = load_config(directory)
    config = config.replace(mesh=mesh, rules=config.rules if rules is None else rules)
    with contextlib.ExitStack() as stack:
        found = _open_tensors(directory, stack)
        # Old checkpoints hold the rotary frequencies, which follow from the config.
        tensors = {n: t for n, t in found.items() if not n.endswith("rotary_emb.inv_freq")}
        _check_tensors(tensors, config, directory)
        config = config.replace(dtype=dtype or _common_dtype(tensors, directory))
        if config.tie_embeddings:
            _check_tied_head(tensors, directory)
        return config, _read_params(tensors, config, stacked)


def existing_directory(path: str | os.PathLike[str]) -> Path:
    directory = local_path(path, "model")
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory} is not a local directory. Download a model first, for example with "
            "huggingface_hub.snapshot_download, and pass the path that it returns."
        )
    return directory


class _Tensor:
    """A tensor in an open safetensors file; its data is read where it is indexed."""

    def __init__(self, handle: Any, name: str, file: Path):
        self.slice = handle.get_slice(name)
        self.file = file
        self.shape = tuple(self.slice.get_shape())
        self.dtype_code = str(self.slice.get_dtype())

    def __getitem__(self, index: Index) -> np.ndarray:
        return self.slice[index]


def _open_tensors(directory: Path, stack: contextlib.ExitStack) -> dict[str, _Tensor]:
    """All tensors of the checkpoint by name, from its single file or else from its index."""
    if (directory / SINGLE_FILE).exists():
        return _open_file(directory / SINGLE_FILE, stack)
    if not (directory / INDEX_FILE).exists():
        raise FileNotFoundError(
            f"{directory} holds neither {SINGLE_FILE} nor {INDEX_FILE}. Only safetensors are read; "
            "convert other formats with transformers' save_pretrained first."
        )
    weight_map = _read_index(directory / INDEX_FILE)
    tensors: dict[str, _Tensor] = {}
    for file_name in sorted(set(weight_map.values())):
        found = _open_file(directory / file_name, stack)
        listed = {name for name, file in weight_map.items() if file == file_name}
        if listed != found.keys():
            name = min(listed ^ found.keys())
            problem = "is not there" if name in listed else "does not belong there"
            raise ValueError(
                f"{directory / file_name}: tensor {name!r} {problem} according to {INDEX_FILE}."
            )
        tensors |= found
    return tensors


def _read_index(file: Path) -> dict[str, str]:
    weight_map = read_object(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{file}: field 'weight_map' must map tensor names to file names.")
    for tensor, name in weight_map.items():
        # As on either kind of system: an index is data from elsewhere.
        plain = isinstance(name, str) and name == PurePosixPath(name).name
        if not plain or name != PureWindowsPath(name).name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{file}: tensor {tensor!r} lies in {name!r:.200}, which is not the name of a "
                "safetensors file beside the index."
            )
    return weight_map


def _open_file(file: Path, stack: contextlib.ExitStack) -> dict[str, _Tensor]:
    if not file.is_file():
        what = "is not a regular file" if file.exists() else "does not exist"
        raise FileNotFoundError(f"{file} {what}, but the checkpoint needs it.")
    try:
        handle = stack.enter_context(safe_open(file, framework="numpy"))
        return {name: _Tensor(handle, name, file) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{file} is not a valid safetensors file: {error}.") from None


def _check_tensors(tensors: dict[str, _Tensor], config: ModelConfig, directory: Path) -> None:
    """Raises unless the tensors are, by name, shape and dtype, those that the config asks for."""
    # Sizes come from a file: take as many names as can be there, and a few to report.
    expected = dict(itertools.islice(tensor_shapes(config), len(tensors) + _SHOWN))
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ValueError(
            f"{directory}: {CONFIG_FILE} asks for tensors that are missing: "
            f"{', '.join(missing[:_SHOWN])}{', ...' if len(missing) > _SHOWN else ''}."
        )
    if config.tie_embeddings:  # some hold the tied head a second time
        expected["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    for name, tensor in tensors.items():
        if name not in expected:
            raise ValueError(f"{tensor.file}: tensor {name!r} has no place in a {config.family}.")
        if tensor.shape != expected[name]:
            raise ValueError(
                f"{tensor.file}: tensor {name!r} has shape {tensor.shape}, but {CONFIG_FILE} asks "
                f"for {expected[name]}."
            )
        if tensor.dtype_code not in _DTYPE_CODES:
            raise ValueError(
                f"{tensor.file}: tensor {name!r} has dtype {tensor.dtype_code}; supported are "
                f"{', '.join(_DTYPE_CODES)}."
            )


def _check_tied_head(tensors: dict[str, _Tensor], directory: Path) -> None:
    """Raises if there is a head that differs from the embeddings it should be tied to."""
    head, embed = tensors.get("lm_head.weight"), tensors["model.embed_tokens.weight"]
    if head is None:
        return
    total, rows = embed.shape[0], 8192
    for start in range(0, total, rows):
        part = (slice(start, min(start + rows, total)), slice(None))
        if not np.array_equal(head[part], embed[part]):
            raise ValueError(
                f"{directory}: 'lm_head.weight' differs from 'model.embed_tokens.weight', but "
                f"{CONFIG_FILE} says tie_word_embeddings; set it to false there to use both."
            )


def _common_dtype(tensors: dict[str, _Tensor], directory: Path) -> str:
    codes = {tensor.dtype_code for tensor in tensors.values()}
    if len(codes) > 1:
        raise ValueError(
            f"{directory} holds tensors of different dtypes, {', '.join(sorted(codes))}; say "
            "which one to load them in with dtype=."
        )
    return _DTYPE_CODES[codes.pop()]


def _read_params(tensors: dict[str, _Tensor], config: ModelConfig, stacked: bool) -> Params:
    params = {}
    layers: list[Params] = [{} for _ in range(0 if stacked else config.num_layers)]
    placed = {} if config.mesh is None else shardings(config, config.mesh)
    places = flatten_dict(placed, sep="/")
    for path, layout in tensor_layouts(config).items():
        shape = (config.num_layers, *layout.shape) if path.startswith("layers/") else layout.shape
        read = _reader(tensors, layout, shape, config.dtype)
        rest = (slice(None),) * len(layout.shape)
        if path.startswith("layers/") and layers:
            for i, layer in enumerate(layers):
                block = read((slice(i, i + 1), *rest))
                layer[path.removeprefix("layers/")] = jnp.asarray(block[0])
        elif config.mesh is None:
            params[path] = jnp.asarray(read((slice(None),) * len(shape)))
        else:
            params[path] = jax.make_array_from_callback(shape, places[path], read)
    tree = unflatten_dict(params, sep="/")
    return {**tree, "layers": layers} if layers else tree


def _reader(
    tensors: dict[str, _Tensor], layout: TensorLayout, shape: tuple[int, ...], dtype: str
) -> Callable[[Any], np.ndarray]:
    """A function that reads any block of one parameter."""
    stacked = len(shape) > len(layout.shape)
    blocks: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

    def read(index: Index) -> np.ndarray:
        bounds = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
        if bounds not in blocks:  # the devices of a replicated axis ask for the same block
            block = np.empty([stop - start for start, stop in bounds], dtype)
            if stacked:
                part = layout.tensor_index(index[1:])
                for i, layer in enumerate(range(*bounds[0])):
                    copy(layout.name.format(layer=layer), part, block[i])
            else:
                copy(layout.name, layout.tensor_index(index), block)
            blocks[bounds] = block
        return blocks[bounds]

    def copy(name: str, part: Index, block: np.ndarray) -> None:
        tensor = tensors[name]
        with np.errstate(over="ignore"):
            block[...] = layout.from_tensor(tensor[part], block.shape)
        if all_finite(block):
            return
        if all_finite(np.ascontiguousarray(tensor[part])):
            raise ValueError(
                f"{tensor.file}: tensor {name!r} holds numbers beyond those of {dtype}; load it in "
                "another dtype."
            )
        raise ValueError(f"{tensor.file}: tensor {name!r} holds NaN or infinite numbers.")

    return read


def all_finite(array: np.ndarray) -> bool:
    """Whether no number of a float32, bfloat16 or float16 array is NaN or infinite."""
    # By bits, as numpy's isfinite is slow for bfloat16: the exponent of those is all ones.
    unsigned, exponent = _EXPONENTS[array.dtype.name]
    bits = array.reshape(-1).view(unsigned)
    parts = (bits[i : i + _AT_ONCE] for i in range(0, bits.size, _AT_ONCE))
    return not any(np.any((part & exponent) == exponent) for part in parts)
