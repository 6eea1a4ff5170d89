"""What a run needs on a mesh that need not be here, from shapes alone:

    python -m experiments.plan --config configs/motab.py --mesh data=8,fsdp=16,tensor=2
    python -m experiments.plan --config configs/motab.py --mesh fsdp=16 --topology v5e:4x4

Reads config.json files and no weights. Parameters, optimizer and caches are counted; temporaries,
FLOPs and collectives are those of the compiled programs: for fake CPU devices, or with `--topology`
for chips of a TPU that are not here either (needs libtpu, `pip install -e ".[tpu]"`).
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

from experiments.command.command import command
from experiments.command.config_flags import ConfigFlags
from experiments.command.flags import Flag
from experiments.plan.programs import PROGRAMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ConfigFlags):
    """What to plan, and for which devices."""

    mesh: Annotated[
        str | None, Flag("devices by axis, such as data=8,fsdp=16,tensor=2; 1 by default")
    ] = None
    topology: Annotated[str | None, Flag("a TPU's chips, such as v5e:4x4 or v5p:2x2x2")] = None
    device_memory: Annotated[float | None, Flag("of a device; a known chip's by default", "GB")] = (
        None
    )
    programs: Annotated[
        tuple[str, ...], Flag("what to compile", "PROGRAM,...", PROGRAMS, separator=",")
    ] = PROGRAMS


def run(settings: Settings) -> None:
    """Plans the run."""
    from rich.console import Console

    from experiments.config.read import read_config
    from experiments.plan.devices import CHIP_MEMORY, find_devices, read_mesh
    from experiments.plan.planning import make_plan

    config = read_config(settings.config.fields)
    chip = (settings.topology or "").partition(":")[0]
    sizes = read_mesh(settings.mesh)
    devices = find_devices(sizes, settings.topology)
    memory = settings.device_memory or CHIP_MEMORY.get(chip)
    make_plan(
        config,
        sizes,
        devices,
        memory,
        list(settings.programs),
        Console(),
    )


main = command("plan", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
