"""Our own measurements, as a measuring process: `python -m experiments.bench.worker REQUEST`."""

from __future__ import annotations

import importlib

import jax

from experiments.bench.peers import bench_protocol

MODULES = {
    "generate": "generate",
    "train": "train",
    "onpolicy": "train",
    "loss": "loss",
    "engine": "engine",
    "packing": "packing",
    "compile": "compiling",
    "write": "write",
}
# By variant.
MOTAB = {
    "": "motab.batches",
    "static batches": "motab.batches",
    "parts": "motab.parts",
    "literal": "motab.literal",
    "literal, batched": "motab.literal",
}


def measure(session: bench_protocol.Session) -> None:
    """Whatever the request asks for. Facts get the device, and its peak memory where it has one."""
    session.packages = ("jax", "jaxlib", "optax", "flax")
    what, variant = session.request["what"], session.request["variant"]
    name = MODULES.get(what) or MOTAB[variant]
    importlib.import_module(f"experiments.bench.ours.{name}").measure(session)
    device = jax.devices()[0]
    session.facts |= {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
    }
    memory = device.memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        session.facts["device_peak_mib"] = memory["peak_bytes_in_use"] / 2**20


if __name__ == "__main__":
    bench_protocol.serve(measure)
