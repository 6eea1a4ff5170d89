"""What a run needs on a mesh that need not be here, from shapes alone:

python -m experiments.plan --config configs/motab.py --mesh data=8,fsdp=16,tensor=2 [--topology v5e:4x4]

Reads config.json files and no weights. Parameters, optimiser and caches are counted; temporaries,
FLOPs and collectives are those of the compiled programs: for fake CPU devices, or with `--topology`
for chips of a TPU that are not here either (needs libtpu, `pip install -e ".[tpu]"`).
"""

from __future__ import annotations

import sys

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from experiments.command.flags import parse_flags
from experiments.plan.devices import CHIP_MEMORY, find_devices, read_mesh
from experiments.plan.planning import PROGRAMS, make_plan

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_MESH = flags.DEFINE_string("mesh", None, "devices by axis: data=8,fsdp=16,tensor=2; 1 by default")
_TOPOLOGY = flags.DEFINE_string("topology", None, "a TPU's chips, such as v5e:4x4 or v5p:2x2x2")
_MEMORY = flags.DEFINE_float("device_memory", None, "of a device, in GB; a known chip's by default")
_PROGRAMS = flags.DEFINE_list("programs", list(PROGRAMS), f"what to compile, of {PROGRAMS}")


def main(_: list[str]) -> None:
    """Plans the run that the flags name."""
    logging.set_verbosity(logging.WARNING)
    if _CONFIG.value is None:
        sys.exit("Which config? For example: --config configs/motab.py --mesh data=2,fsdp=4")
    memory = _MEMORY.value or CHIP_MEMORY.get((_TOPOLOGY.value or "").partition(":")[0])
    try:
        sizes = read_mesh(_MESH.value)
        devices = find_devices(sizes, _TOPOLOGY.value)
        make_plan(_CONFIG.value, sizes, devices, memory, _PROGRAMS.value, Console())
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
