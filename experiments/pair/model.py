"""A model as one value."""

from __future__ import annotations

import dataclasses

from models import ModelConfig
from models.parameters import Params


@dataclasses.dataclass(frozen=True)
class Model:
    """Parameters and what they are parameters of.

    Attributes:
      params: None where they are those of another model, such as a student that holds its own base.
      config: the architecture.
    """

    params: Params | None
    config: ModelConfig
