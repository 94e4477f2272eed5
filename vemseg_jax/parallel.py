"""Data-parallel training: which devices share a batch, and what lies where.

Every device holds the whole state and its share of each batch; XLA adds the sums that cross
devices, batch statistics and losses among them, so that the numbers are those of one device.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vemseg_jax.errors import InputError

AXIS = "batch"
T = TypeVar("T")


class Network(Protocol):
    """What a step needs of a network: Linen's `apply`."""

    def apply(self, variables: Any, image: Any, **options: Any) -> Any:
        """Outputs, and with `mutable` the collections that changed."""
        ...


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of a run, one or a mesh of several, of one process or of many."""

    mesh: Mesh | None = None

    @property
    def devices(self) -> int:
        """How many devices share a batch."""
        return 1 if self.mesh is None else self.mesh.size

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        assert self.mesh is not None
        sharding = NamedSharding(self.mesh, spec)

        def put(x: Any) -> jax.Array:
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(put, tree)

    def whole(self, tree: Any) -> Any:
        """Arrays of the host on every device."""
        return jax.device_put(tree) if self.mesh is None else self._put(tree, PartitionSpec())

    def split(self, tree: Any, *, axis: int = 0) -> Any:
        """Arrays of the host, the same in every process, cut along `axis`, a part a device."""
        if self.mesh is None:
            return tree
        return self._put(tree, PartitionSpec(*[None] * axis, AXIS))

    def local(self, tree: Any) -> Any:
        """What every device holds whole, as it is on the first one of this process."""
        return tree if self.mesh is None else jax.tree.map(lambda x: x.addressable_data(0), tree)

    def join(self, tree: Any) -> Any:
        """Arrays of which each process has the rows of its own devices (`rows`)."""
        if self.mesh is None:
            return jax.device_put(tree)
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
        )

    def rows(self, count: int) -> slice:
        """Which of `count` rows are cut out for the devices of this process."""
        share = count // jax.process_count() if self.mesh is not None else count
        first = jax.process_index() * share if self.mesh is not None else 0
        return slice(first, first + share)

    def network(self, model: Network) -> Network:
        """The network with each batch cut over the devices before it passes."""
        return model if self.mesh is None else _Split(model, self.mesh)

    def step(self, step: Callable) -> Callable:
        """Compiles a step whose state and metrics are whole on every device; donates the state."""
        if self.mesh is None:
            return jax.jit(step, donate_argnums=0)
        everywhere = NamedSharding(self.mesh, PartitionSpec())

        def whole(state: Any, *data: Any) -> Any:
            return jax.lax.with_sharding_constraint(step(state, *data), everywhere)

        return jax.jit(whole, donate_argnums=0)


ONE_DEVICE = Placement()


@dataclasses.dataclass(frozen=True)
class _Split:
    model: Network
    mesh: Mesh

    def apply(self, variables: Any, image: Any, **options: Any) -> Any:
        if image.shape[0] % self.mesh.size == 0:
            sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
            image = jax.lax.with_sharding_constraint(image, sharding)
        return self.model.apply(variables, image, **options)


def place(batch: int, *, devices: int) -> Placement:
    """Chooses the devices of a run.

    Args:
      batch: crops that are cut over them (half of the batch size for a pair).
      devices: how many; 0 takes as many as share the batch evenly. Several processes always use
        all of them.

    Raises:
      InputError: devices that are not there, or that cannot share the batch evenly.
    """
    there, several = jax.devices(), jax.process_count() > 1
    if several and devices not in (0, len(there)):
        raise InputError(
            f"--config.train.devices={devices}: {jax.process_count()} processes use all of their "
            f"{len(there)} devices; leave it at 0"
        )
    if devices > len(there):
        raise InputError(f"--config.train.devices={devices}: there are {len(there)}")
    count = devices or max(n for n in range(1, len(there) + 1) if batch % n == 0)
    if several:
        count = len(there)
    if batch % count:
        raise InputError(
            f"--config.train.batch_size: {batch} crops (of each kind) cannot be shared evenly by "
            f"{count} devices; give a multiple"
        )
    if not devices and count < len(there):
        logging.warning(
            "%d of %d devices are used: no more of them share %d crops (of each kind) evenly; "
            "choose another --config.train.batch_size",
            count,
            len(there),
            batch,
        )
    if count == 1:
        return Placement()
    return Placement(Mesh(np.array(there[:count]), (AXIS,)))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def of_first(tree: Any) -> Any:
    """The first process's values in every process: numbers and arrays of the host."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def first_decides(action: Callable[[], T], *, otherwise: T) -> T:
    """Runs an action in the first process; where it is refused, every process ends.

    Returns:
      What the action returned; in the other processes `otherwise`.

    Raises:
      InputError: what the action raised; in the other processes that it did.
    """
    result, refused = otherwise, None
    if is_first():
        try:
            result = action()
        except InputError as error:
            refused = error
    if of_first(np.asarray(refused is not None)):
        raise refused or InputError("the first process refused the run; its message says why")
    return result


def join_processes(
    coordinator: str | None, *, num_processes: int | None, process_id: int | None
) -> None:
    """Makes this process one of several that train together; comes before any use of a device.

    Args:
      coordinator: `host:port` of the first process; None finds it, and the numbers, as SLURM,
        Open MPI and Kubernetes tell them.
      num_processes: how many there are.
      process_id: which this one is, from 0.

    Raises:
      InputError: nothing was given and nothing is found, or the others do not come.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"--distributed: the processes could not be joined ({reason}); outside of SLURM, Open "
            "MPI and Kubernetes give --coordinator, --num_processes and --process_id"
        ) from error
