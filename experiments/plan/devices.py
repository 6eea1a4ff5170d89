"""Devices to plan for: fake ones, or chips that are described and not there."""

from __future__ import annotations

import math
import os
from typing import Any

import jax

from models.sharding import AXES

# GB of the chips of a topology.
CHIP_MEMORY = {"v4": 32.0, "v5e": 16.0, "v5p": 95.0, "v6e": 32.0}


def read_mesh(text: str | None) -> dict[str, int]:
    """`data=8,fsdp=16` as sizes; an axis that is not named has one device.

    Raises:
      ValueError: it is malformed, or an axis is unknown or named twice.
    """
    sizes: dict[str, int] = {}
    for part in (text or "").split(",") if text else ():
        name, _, size = part.partition("=")
        if name not in AXES or name in sizes or not size.lstrip("-").isdigit():
            raise ValueError(
                f"--mesh={text}: {part!r} should be an axis of {AXES}, once, and a number of "
                "devices: data=8,fsdp=16,tensor=2."
            )
        sizes[name] = int(size)
    return {axis: sizes.get(axis, 1) for axis in AXES}


def find_devices(sizes: dict[str, int], topology: str | None) -> list[Any]:
    """Fake CPU devices for the mesh, or the chips of a topology. Call it before jax has devices.

    Raises:
      ValueError: the topology is unknown, or a size is -1 where nothing says what the rest is.
    """
    jax.config.update("jax_platforms", "cpu")
    if topology is None:
        if any(n < 1 for n in sizes.values()):
            raise ValueError(
                f"--mesh={sizes}: give every axis its devices; -1 needs a --topology to fill."
            )
        count = math.prod(sizes.values())
        jax.config.update("jax_num_cpu_devices", count)
        return jax.devices()[:count]
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:
        raise ValueError(
            f"--topology={topology}: {' '.join(str(error).split())[:300]} It takes libtpu "
            '(pip install -e ".[tpu]") and a name such as v5e:4x4.'
        ) from error
