"""Training state, schedules, steps and the loop around them.

The package can be called: `vemseg_jax.train(...)` is `vemseg_jax.api.train`.
"""

from vemseg_jax import api
from vemseg_jax.callable_module import make_callable

make_callable(__name__, api.train)
