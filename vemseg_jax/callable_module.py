"""Packages that can be called: `vemseg_jax.train(...)` beside `vemseg_jax.train.loop`."""

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any


def make_callable(module: str, function: Callable[..., Any]) -> None:
    """Lets a module be called as a function.

    Importing a part of a package, such as `vemseg_jax.train.loop`, sets the package as the
    attribute `train` of `vemseg_jax`, in place of any function of that name. So the package itself
    answers to the call.

    Args:
      module: name of a module that is being imported.
      function: what a call of it does; `help` and `inspect.signature` show it.
    """

    class CallableModule(types.ModuleType):
        """A module that is also the function of its name."""

        __signature__ = inspect.signature(function)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    CallableModule.__call__.__doc__ = function.__doc__
    sys.modules[module].__class__ = CallableModule
