"""One prediction: what it follows from, and how one of its blocks is made.

`Job` travels between processes; `Work` is what a process opens from it.
"""

import functools
import hashlib
import threading
from typing import Any

import jax
import numpy as np

import vemseg_jax
from vemseg_jax.config import plain
from vemseg_jax.data.store.failures import reason
from vemseg_jax.data.store.volume import FULL, TRAINING, array_path, is_stored, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import outputs as outputs_
from vemseg_jax.infer.block_prediction import BlockPrediction
from vemseg_jax.infer.grid import Block
from vemseg_jax.infer.job import BlockError, Job
from vemseg_jax.infer.ledger import fingerprint
from vemseg_jax.infer.outputs import BlockWriter, Checksums, Output
from vemseg_jax.infer.predictor import describe
from vemseg_jax.infer.seen import Seen, seen_slices
from vemseg_jax.infer.trained import load_trained
from vemseg_jax.models.registry import model_to_dict


def _digest(variables: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(variables), key=str):
        digest.update(str(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()[:16]


class Work(BlockPrediction):
    """The prediction of a volume, open in this process, and how its blocks are read and stored.

    Attributes:
      job: what is predicted, as it travels between processes.
      outputs: the label images.
      parts: everything that the result follows from, as JSON values.

    Raises:
      InputError: anything that does not fit; see the message.
    """

    def __init__(self, job: Job):
        self.job, options = job, job.options
        options.check()
        volume, trained = open_volume(job.volume), load_trained(job.workdir, job.which)
        self.outputs = outputs_.plan_outputs(
            trained.description.structures,
            options.suffix,
            probabilities=options.probabilities,
            disagreement=options.disagreement,
        )
        quantities = {output.quantity for output in self.outputs}
        super().__init__(volume, trained, options, quantities=tuple(quantities), slices=job.slices)
        self.parts = self._parts()
        self._lock = threading.Lock()
        self._writers: dict[str, BlockWriter] = {}

    def _parts(self) -> dict[str, Any]:
        description, options = self.trained.description, self.job.options
        return {
            "version": vemseg_jax.__version__,
            "weights": _digest(self.trained.variables),
            "network": plain(model_to_dict(description.model)),
            "prediction": description.prediction if description.networks == 2 else "single",
            "structures": list(description.structures),
            "normalization": self.grey_values.record(),
            "precision": description.precision,
            "volume": self.volume.fingerprint,
            "resolution": FULL if self.full else TRAINING,
            "method": describe(options.method, self.trained),
            "outputs": [output.name for output in self.outputs],
            "grid": plain(self.grid),
        }

    @functools.cached_property
    def seen(self) -> Seen:
        """The slices of the volume that the network has seen in training."""
        return seen_slices(self.trained.description, self.volume)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Stands for `parts`."""
        return fingerprint(self.parts)

    def read(self, block: Block) -> np.ndarray:
        """The grey values that a block needs, `[s, h, w]`.

        Raises:
          BlockError: they cannot be read.
        """
        plan = self.plan(block)
        (y0, y1), (x0, x1) = plan.source
        image = self.volume.image(self.level)
        futures = [image[z, y0:y1, x0:x1].read() for z in block.slices]
        planes = []
        for z, future in zip(block.slices, futures, strict=True):
            try:
                plane = np.asarray(future.result())
            except (ValueError, OSError) as error:
                why = reason(error, damaged="is damaged; convert the volume again")
                raise BlockError(f"{self.volume.path}: slice {z} {why}") from error
            if self.volume.slice_mean[z] > 0 and not plane.any() and self._is_lost(z):
                raise BlockError(
                    f"{self.volume.path}: slice {z} has lost its pixels (it reads as black);"
                    " convert the volume again"
                )
            planes.append(plane)
        return np.stack(planes)

    def _is_lost(self, z: int) -> bool:
        """Whether nothing is stored of a slice: chunks that are black throughout are not."""
        folder = self.volume.path / array_path(self.level, self.volume.downsample)
        return not is_stored(folder, z)

    def store(self, block: Block, results: dict[str, jax.Array]) -> dict[str, Checksums]:
        """Waits for a block, writes it to every label image; checksums by name.

        Raises:
          BlockError: the network gave no numbers.
          OutputError: it could not be stored.
        """
        self.check_finite(block, results)
        arrays = {name: np.asarray(value) for name, value in results.items()}
        return {
            output.name: self.writer(output).write(
                block, arrays[output.quantity][..., output.channel]
            )
            for output in self.outputs
        }

    def writer(self, output: Output) -> BlockWriter:
        """Of a label image; creates its arrays.

        Raises:
          InputError: they cannot be created.
        """
        with self._lock:
            if output.name not in self._writers:
                directory = outputs_.partial_directory(self.volume.path, output.name)
                self._writers[output.name] = BlockWriter(directory, output, self.layout, self.grid)
            return self._writers[output.name]

    def attributes(self, output: Output) -> dict[str, Any]:
        """What a label image records of where it came from."""
        return {
            "kind": output.kind,
            "quantity": output.quantity,
            "structure": output.structure,
            "labelled_slices": list(self.grid.slices),
            **self.seen.record(),
            "training_volume": self.trained.description.volume,
            "normalization": self.grey_values.record(),
            "model": self.parts["network"]["name"],
            "prediction": self.parts["prediction"],
            "checkpoint": f"{self.trained.workdir} {self.trained.which} step {self.trained.step}",
            "method": self.parts["method"],
        }


_open_lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def _opened(job: Job) -> Work:
    return Work(job)


def open_work(job: Job, expected: str) -> Work:
    """The work of a job, opened once in a process, again where its files have changed since.

    Args:
      job: what to predict.
      expected: the fingerprint of the work of the process that asks.

    Raises:
      InputError: it cannot be opened, or this process sees other files or is of another version.
    """
    with _open_lock:
        if _opened(job).fingerprint != expected:
            _opened.cache_clear()
        if _opened(job).fingerprint != expected:
            raise InputError("it sees another volume, checkpoint or version of this package")
        return _opened(job)
