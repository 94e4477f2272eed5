"""One prediction: what it follows from, and how one of its blocks is made.

`Job` travels between processes; `Work` is what a process opens from it.
"""

import dataclasses
import functools
import hashlib
import threading
from typing import Any

import jax
import numpy as np

import vemseg_jax
from vemseg_jax.accelerator import check_device
from vemseg_jax.config import plain
from vemseg_jax.data.store.failures import reason
from vemseg_jax.data.store.volume import FULL, TRAINING, Volume, array_path, is_stored, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import outputs as outputs_
from vemseg_jax.infer.decide import decide
from vemseg_jax.infer.grey_values import grey_values
from vemseg_jax.infer.grid import Block, make_grid
from vemseg_jax.infer.job import BlockError, Job, PredictOptions
from vemseg_jax.infer.ledger import fingerprint
from vemseg_jax.infer.outputs import BlockWriter, Checksums, Output
from vemseg_jax.infer.predictor import WINDOW, Predictor, describe, make_planner, make_predictor
from vemseg_jax.infer.seen import Seen, seen_slices
from vemseg_jax.infer.trained import Description, Trained, load_trained
from vemseg_jax.infer.windows import grown
from vemseg_jax.models.registry import model_to_dict

PIXEL_TOLERANCE = 0.2


def check_volume(volume: Volume, description: Description) -> None:
    """Refuses a volume whose pixels at training scale are not those the network learned."""
    found = [size * volume.downsample for size in volume.voxel_size[1:]]
    learned = [size * description.downsample for size in description.voxel_size[1:]]
    if any(abs(a - b) > PIXEL_TOLERANCE * b for a, b in zip(found, learned, strict=True)):
        raise InputError(
            f"{volume.path} has training-scale pixels of {found[0]:g} x {found[1]:g} nm "
            f"(downsample {volume.downsample}), but the network learned pixels of "
            f"{learned[0]:g} x {learned[1]:g} nm; convert with a --voxel_size and --downsample "
            f"that bring them within {100 * PIXEL_TOLERANCE:.0f} %"
        )


def _as_asked(trained: Trained, options: PredictOptions) -> Trained:
    """The network, with another precision or of a pair another prediction where one was chosen."""
    if trained.description.networks == 1:
        for flag, chosen in (
            (f"--prediction={options.prediction}", options.prediction is not None),
            ("--disagreement", options.disagreement),
        ):
            if chosen:
                raise InputError(
                    f"{flag} is of two networks, but {trained.workdir} trained one; leave it out"
                )
    choices = {"prediction": options.prediction, "precision": options.precision}
    made: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    return dataclasses.replace(
        trained, description=dataclasses.replace(trained.description, **made)
    )


def _chosen(volume: Volume, slices: tuple[int, ...]) -> list[int]:
    depth = volume.shape[0]
    if outside := [z for z in slices if not 0 <= z < depth]:
        raise InputError(f"--slices names {outside}; {volume.path} has slices 0 to {depth - 1}")
    return sorted(set(slices)) if slices else list(range(depth))


def _digest(variables: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(variables), key=str):
        digest.update(str(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()[:16]


class Work:
    """A prediction, open in this process.

    Attributes:
      volume, trained: what is predicted with what.
      grey_values: how they are normalised.
      grid: the blocks.
      outputs: the label images.
      parts: everything that the result follows from, as JSON values.

    Raises:
      InputError: anything that does not fit; see the message.
    """

    def __init__(self, job: Job):
        self.job, options = job, job.options
        options.check()
        self.volume = open_volume(job.volume)
        self.trained = _as_asked(load_trained(job.workdir, job.which), options)
        description = self.trained.description
        check_volume(self.volume, description)
        self.grey_values = grey_values(options.normalization, self.volume, description)
        self.full = options.resolution == FULL and self.volume.downsample != 1
        # The reference's windows are cut at full resolution; whole slices pass at training scale.
        self.level = FULL if self.full and options.method.name == WINDOW else TRAINING
        self.grid = make_grid(
            self.volume.plane_shape(TRAINING),
            _chosen(self.volume, job.slices),
            depth=options.block_slices,
        )
        self.layout = outputs_.layout(self.volume, FULL if self.full else TRAINING)
        self.outputs = outputs_.plan_outputs(
            description.structures,
            options.suffix,
            probabilities=options.probabilities,
            disagreement=options.disagreement,
        )
        self.parts = self._parts()
        self._scale = self.volume.downsample if self.level == FULL else 1
        self._planner = make_planner(
            options.method,
            self.trained,
            shape=self.volume.plane_shape(self.level),
            scale=self._scale,
            part=self.grid.part,
        )
        self._lock = threading.Lock()
        self._writers: dict[str, BlockWriter] = {}

    @functools.cached_property
    def _predict(self) -> Predictor:
        """Made when the first block is predicted: until then the device belongs to others."""
        check_device()
        return make_predictor(
            self.trained,
            self.job.options.method,
            scale=self._scale,
            batch_size=self.job.options.batch_size,
            both=self.job.options.disagreement,
        )

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
        plan = self._plan(block)
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

    def _plan(self, block: Block) -> Any:
        box, halo = block.box, 0
        if self.level == FULL:
            box = self._full_box(block)
        elif self.full:
            # What lies between the last pixels of this block and the first of the next.
            halo = 1
        return self._planner.over(box, halo=halo)

    def _full_box(self, block: Block) -> Any:
        return outputs_.region_of(block, self.grid, self.layout, "0")

    def predict(self, block: Block, planes: np.ndarray) -> dict[str, jax.Array]:
        """What is to be stored of a block, on the device, and whether it is sound.

        Args:
          block: which.
          planes: from `read`.

        Returns:
          "mask", "probability" and "disagreement", those asked for, `[s, h, w, structures]` uint8,
          and "finite", whether the network gave numbers everywhere.
        """
        images, normalization = self.grey_values.of(block.slices, planes)
        prob = self._predict(images, self._plan(block), normalization)
        enlarged = None
        if self.full and self.level == TRAINING:
            (y0, y1), (x0, x1) = self._full_box(block)
            (top, _), (left, _) = grown(block.box, 1, self.grid.shape)
            f = self.volume.downsample
            enlarged = ((y0 - f * top, y1 - f * top), (x0 - f * left, x1 - f * left))
        description = self.trained.description
        return decide(
            prob,
            enlarged=enlarged,
            factor=self.volume.downsample,
            prediction=description.prediction,
            both=self.job.options.disagreement,
            exclusive=description.model.exclusive,
            quantities=tuple(sorted({output.quantity for output in self.outputs})),
        )

    def store(self, block: Block, results: dict[str, jax.Array]) -> dict[str, Checksums]:
        """Waits for a block, writes it to every label image; checksums by name.

        Raises:
          BlockError: the network gave no numbers.
          OutputError: it could not be stored.
        """
        if not bool(results["finite"]):
            raise BlockError(
                f"{block}: the network gave no numbers (nan); check the weights of"
                f" {self.trained.workdir}"
            )
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
