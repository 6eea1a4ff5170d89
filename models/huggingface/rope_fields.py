"""How `config.json` writes rotary positions, in both dialects, as a base and a `RopeScaling`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from models.huggingface.fields import Fields
from models.rope import (
    LinearRopeScaling,
    Llama3RopeScaling,
    RopeScaling,
    YarnRopeScaling,
    yarn_magnitude,
)

_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_CLASSES: dict[str, Any] = {
    "default": None,
    "linear": LinearRopeScaling,
    "llama3": Llama3RopeScaling,
    "yarn": YarnRopeScaling,
}
# What YaRN's class does not have. transformers reads none of the last three.
_YARN = ("mscale", "mscale_all_dim", "attn_factor", "extrapolation_factor", "finetuned")
_ORIGINAL = "original_max_position_embeddings"


def read_rope(fields: Fields, max_positions: int) -> tuple[float, RopeScaling | None]:
    """The base and the rescaling of rotary positions, from whichever dialect is present.

    Args:
      fields: those of the whole file.
      max_positions: its `max_position_embeddings`.

    Raises:
      ValueError: a field is malformed or not supported, or the dialects contradict each other.
    """
    inner = {
        name: Fields(fields.values[name], fields.source, f"{name}.")
        for name in ("rope_parameters", "rope_scaling")
        # {} is how some writers say that nothing is rescaled.
        if fields.given(name) and fields.values[name] != {}
    }
    scalings = {name: _scaling(f, fields, max_positions) for name, f in inner.items()}
    givers = [f for f in (fields, *inner.values()) if f.given("rope_theta")]
    thetas = {f"{f.prefix}rope_theta": f.number("rope_theta") for f in givers}
    for found in (thetas, scalings):
        if len(set(found.values())) > 1:
            raise ValueError(
                f"{fields.source}: fields {', '.join(map(repr, found))} contradict each other: "
                f"{', '.join(map(str, found.values()))}; keep one dialect."
            )
    return next(iter(thetas.values()), 10000.0), next(iter(scalings.values()), None)


def write_rope(scaling: RopeScaling | None) -> dict[str, Any]:
    """What to write for a rescaling, `rope_type` included; None fields are left out."""
    if scaling is None:
        return {"rope_type": "default"}
    values = {k: v for k, v in dataclasses.asdict(scaling).items() if v is not None}
    return {"rope_type": scaling.rope_type, **values}


def _scaling(fields: Fields, whole: Fields, max_positions: int) -> RopeScaling | None:
    rope_type = _rope_type(fields)
    fields.pin("partial_rotary_factor", (1,))
    kind = _CLASSES[rope_type]
    own = [] if kind is None else [field.name for field in dataclasses.fields(kind)]
    known = (*_COMMON, *own, *(_YARN if rope_type == "yarn" else ()))
    for name in fields.values:
        if name not in known and fields.given(name):
            raise fields.error(name, f"it is not a field of rope type {rope_type!r}")
    if kind is None:
        return None
    original = max_positions
    if _ORIGINAL in own:
        original = _original_positions(fields, whole, max_positions)
    if rope_type == "yarn":
        return _yarn(fields, original, max_positions)
    return kind(**{name: original if name == _ORIGINAL else fields.number(name) for name in own})


def _rope_type(fields: Fields) -> str:
    name = "rope_type" if fields.given("rope_type") else "type"
    rope_type = fields.choice(name, _CLASSES) if fields.given(name) else "default"
    if fields.given("type") and fields.values["type"] != rope_type:
        raise fields.error("type", f"it contradicts rope_type={rope_type!r}")
    return rope_type


def _original_positions(fields: Fields, whole: Fields, max_positions: int) -> int:
    """The context before rescaling: given here, or beside it, or the whole context."""
    found = [f.integer(_ORIGINAL) for f in (fields, whole) if f.given(_ORIGINAL)]
    if len(set(found)) > 1:
        where = f"{_ORIGINAL}={found[1]} of the whole file"
        raise fields.error(_ORIGINAL, f"it contradicts {where}; keep one")
    return found[0] if found else max_positions


def _yarn(fields: Fields, original: int, max_positions: int) -> YarnRopeScaling:
    # As transformers 5 has it: null and 0 stand for defaults, `attention_factor` wins over
    # `mscale`, and that only counts together with `mscale_all_dim`.
    factor = fields.number("factor") if fields.given("factor") else max_positions / original
    fields.pin("extrapolation_factor", (1,))
    magnitude = None
    scales = [fields.number(n) for n in ("mscale", "mscale_all_dim") if fields.values.get(n)]
    if fields.given("attention_factor"):
        magnitude = fields.number("attention_factor")
    elif len(scales) == 2:
        magnitude = yarn_magnitude(factor, scales[0]) / yarn_magnitude(factor, scales[1])
    if fields.given("attn_factor"):
        _say_what_attn_factor_does(fields, factor, magnitude)
    betas = {
        name: fields.number(name) for name in ("beta_fast", "beta_slow") if fields.values.get(name)
    }
    truncate = not fields.given("truncate") or fields.boolean("truncate")
    return YarnRopeScaling(factor, original, magnitude, **betas, truncate=truncate)


def _say_what_attn_factor_does(fields: Fields, factor: float, magnitude: float | None) -> None:
    ours = yarn_magnitude(factor) if magnitude is None else magnitude
    theirs = yarn_magnitude(factor) * fields.number("attn_factor")
    if abs(ours - theirs) > 1e-6:
        warnings.warn(
            f"{fields.source}: field '{fields.prefix}attn_factor' is "
            f"{fields.values['attn_factor']}, which is read by vLLM and SGLang "
            "but not by transformers. As in transformers, queries "
            f"and keys are multiplied by {ours:.6g}; for the {theirs:.6g} of those servers write "
            f"'attention_factor': {theirs:.6g} in its place.",
            stacklevel=2,
        )
