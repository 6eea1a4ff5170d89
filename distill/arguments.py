"""Arguments that several functions of the core have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def arguments_of(like: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Says of a function of `*args, **kwargs`, to people and to type checkers, that they are
    `like`'s.
    """

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        returns = inspect.signature(function).return_annotation
        signature = inspect.signature(like).replace(return_annotation=returns)
        vars(function).update(arguments_of=like, __signature__=signature)
        return function

    return decorate


def common_ids(*sizes: int | None) -> int:
    """The narrowest of some vocabularies; None says nothing."""
    return min(size for size in sizes if size is not None)
