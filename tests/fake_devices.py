"""Scripts that need several devices or processes, run in processes of their own on fake devices."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# devices along data, fsdp and tensor
MESHES = ("8x1x1", "1x8x1", "2x2x2", "1x2x4")


def flags_of(devices: int) -> str:
    """XLA's flags for so many fake devices. Nothing is timed: programs are compiled at level 0."""
    return f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"


def environment_of(devices: int) -> dict[str, str]:
    """What such a process starts with. Its own directory holds `tests/models`: ours comes before.

    A fake device waits in a thread for each of its collectives that nothing orders: there may be
    more than threads on a machine of few cores, hence NPROC.
    """
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "XLA_FLAGS": flags_of(devices),
        "JAX_PLATFORMS": "cpu",
        "NPROC": "64",
    }


def run_on_fake_devices(script: Path, *arguments: str, count: int = 8) -> str:
    """What the script prints; the test fails where the script does.

    The number of devices is fixed when jax starts.
    """
    result = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment_of(count),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def run_processes(*command: str, count: int = 2, devices: int = 2, timeout: float = 900) -> str:
    """Runs a command in several processes that find each other by flags; what the first one prints.

    Args:
      command: arguments of python; `--coordinator`, `--num_processes` and `--process_id` are added.
      devices: fake ones of each process.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    running = [
        subprocess.Popen(
            [sys.executable, *command, *(flags if count > 1 else []),
             *([f"--process_id={i}"] if count > 1 else [])],
            env=environment_of(devices), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    # All of them are read at the same time, or one might wait for its reader and the others for it.
    with concurrent.futures.ThreadPoolExecutor(count) as readers:
        try:
            ends = list(readers.map(lambda p: p.communicate(timeout=timeout), running))
        finally:
            for process in running:
                process.kill()
    for process, (out, error) in zip(running, ends, strict=True):
        assert process.returncode == 0, out[-2000:] + error[-4000:]
    return ends[0][0]
