"""Rotary positions (RoPE, arXiv 2104.09864), and rescalings that stretch them over longer texts.

B rows, T tokens, H heads, Dh numbers per head, F = Dh / 2 frequencies.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from models.checks import Count, above, at_least, check

Factor = Annotated[float, at_least(1)]
Positive = Annotated[float, above(0)]


@dataclasses.dataclass(frozen=True)
class LinearRopeScaling:
    """Position interpolation (arXiv 2306.15595): every position counts for 1 / factor of one.

    Attributes:
      factor: how many times longer the context becomes.
    """

    rope_type: ClassVar[str] = "linear"
    magnitude: ClassVar[float] = 1.0

    factor: Factor

    def __post_init__(self):
        check(self, "rope_scaling")

    def rescale(self, frequencies_F: jax.Array, theta: float) -> jax.Array:
        """The rescaled frequencies [F], in radians per position."""
        return frequencies_F / self.factor


@dataclasses.dataclass(frozen=True)
class Llama3RopeScaling:
    """Llama 3.1's frequency-dependent interpolation (`rope_type: llama3`).

    Wavelengths beyond the original context are stretched by `factor`, short ones are kept, and
    those between are interpolated linearly in the number of turns per original context.

    Attributes:
      factor: how many times longer the context becomes.
      low_freq_factor: turns per original context up to which a wavelength is stretched.
      high_freq_factor: turns per original context from which it is kept.
      original_max_position_embeddings: the context before, in tokens.
    """

    rope_type: ClassVar[str] = "llama3"
    magnitude: ClassVar[float] = 1.0

    factor: Factor
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Count

    def __post_init__(self):
        check(self, "rope_scaling")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"rope_scaling.high_freq_factor={self.high_freq_factor} must exceed "
                f"low_freq_factor={self.low_freq_factor}."
            )

    def rescale(self, frequencies_F: jax.Array, theta: float) -> jax.Array:
        """The rescaled frequencies [F], in radians per position."""
        turns = self.original_max_position_embeddings * frequencies_F / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        return frequencies_F * (kept + (1 - kept) / self.factor)


@dataclasses.dataclass(frozen=True)
class YarnRopeScaling:
    """YaRN (arXiv 2309.00071), as transformers computes it.

    Frequencies that turn more than `beta_fast` times in the original context are kept, those that
    turn less than `beta_slow` times are divided by `factor`, and between the two a ramp over the
    frequencies' indices blends them ("NTK by parts"). Queries and keys both grow by
    `attention_factor`, at every length, so that attention scores grow by its square.

    Attributes:
      factor: how many times longer the context becomes.
      original_max_position_embeddings: the context before, in tokens.
      attention_factor: what queries and keys are multiplied by; `yarn_magnitude(factor)`, the
        paper's choice, if None.
      beta_fast, beta_slow: the ends of the ramp, in turns per original context.
      truncate: whether the ends are rounded outwards to whole indices, as the paper's code does.
    """

    rope_type: ClassVar[str] = "yarn"

    factor: Factor
    original_max_position_embeddings: Count
    attention_factor: Annotated[float | None, above(0)] = None
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    truncate: bool = True

    def __post_init__(self):
        check(self, "rope_scaling")
        if self.beta_fast < self.beta_slow:
            raise ValueError(
                f"rope_scaling.beta_fast={self.beta_fast} must be at least "
                f"beta_slow={self.beta_slow}."
            )

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by."""
        if self.attention_factor is None:
            return yarn_magnitude(self.factor)
        return self.attention_factor

    def rescale(self, frequencies_F: jax.Array, theta: float) -> jax.Array:
        """The rescaled frequencies [F], in radians per position."""
        count = len(frequencies_F)
        fast, slow = (self._index(beta, theta, count) for beta in (self.beta_fast, self.beta_slow))
        if self.truncate:
            fast, slow = math.floor(fast), math.ceil(slow)
        fast, slow = max(fast, 0), min(slow, 2 * count - 1)
        width = slow - fast if slow != fast else 0.001
        stretched = jnp.clip((jnp.arange(count, dtype=jnp.float32) - fast) / width, 0.0, 1.0)
        return frequencies_F / self.factor * stretched + frequencies_F * (1 - stretched)

    def _index(self, turns: float, theta: float, count: int) -> float:
        """The index, not a whole one, of the frequency with so many turns in the old context."""
        wavelength = self.original_max_position_embeddings / (2 * math.pi * turns)
        return count * math.log(wavelength) / math.log(theta)


RopeScaling = LinearRopeScaling | Llama3RopeScaling | YarnRopeScaling


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """0.1 scale ln(factor) + 1, YaRN's fit of the temperature that a longer context asks for."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def rope_frequencies(theta: float, head_dim: int, scaling: RopeScaling | None) -> jax.Array:
    """Angular frequencies [F], in radians per position, after any rescaling."""
    half = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequencies_F = 1.0 / (theta**half)
    return frequencies_F if scaling is None else scaling.rescale(frequencies_F, theta)


def rope(
    x_BxTxHxDh: jax.Array,
    positions_BxT: jax.Array,
    frequencies_F: jax.Array,
    magnitude: float = 1.0,
) -> jax.Array:
    """Rotates the two halves of every head by position times frequency; [B, T, H, Dh].

    Args:
      magnitude: what the result is multiplied by, as `YarnRopeScaling` asks for.
    """
    angles = positions_BxT[..., None].astype(jnp.float32) * frequencies_F
    cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
    if magnitude != 1:
        cos, sin = cos * magnitude, sin * magnitude
    a, b = jnp.split(x_BxTxHxDh.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return rotated.astype(x_BxTxHxDh.dtype)
