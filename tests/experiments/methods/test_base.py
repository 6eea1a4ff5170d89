"""What every method asks of its batch."""

from __future__ import annotations

import pytest
from jax.sharding import AbstractMesh

from experiments.methods.base import check_rows


def test_rows_that_do_not_divide_over_the_devices_are_refused():
    mesh = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    check_rows("batch_size", 16, mesh)
    check_rows("batch_size", 5, None)
    with pytest.raises(ValueError, match=r"batch_size=12 .* the 8 devices .* Use 8 or 16, or"):
        check_rows("batch_size", 12, mesh)
    with pytest.raises(ValueError, match=r"Use 8, or another mesh"):
        check_rows("batch_size", 5, mesh)
