"""Where labels and masks lie in the images: their axes, their voxels and their position."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vemseg_jax.data.convert.voxel_size import same_length
from vemseg_jax.data.formats.axes import GivenAxes
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.physical_size import VoxelSize, lengths
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.data.formats.stores import Location
from vemseg_jax.data.store.volume import IGNORE
from vemseg_jax.errors import InputError

# Stands for every structure and the ignore mask in what flags say of labels.
ALL = ""
# How far from a whole number of voxels a position may be: records are rounded.
_TOLERANCE = 0.05

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Placement:
    """Where a stack of labels lies in the images.

    Attributes:
      offset: the voxel of the images, zyx, on which its first voxel lies.
      shape: of the images, zyx; None where the stack covers all of them.
      why: what says so, for people.
    """

    offset: Voxel = (0, 0, 0)
    shape: Voxel | None = None
    why: str = ""

    def pairs(self, depth: int) -> dict[int, int]:
        """`{z of the images: slice of the stack}` of a stack of `depth` slices."""
        first = self.offset[0]
        last = first + depth if self.shape is None else min(self.shape[0], first + depth)
        return {z: z - first for z in range(max(0, first), last)}

    def lay(self, plane: np.ndarray, *, fill: int) -> np.ndarray:
        """A slice of the stack `[h, w]` as one of the images, `fill` where it has no pixels."""
        if self.shape is None:
            return plane
        out = np.full(self.shape[1:], fill, plane.dtype)
        (y, x), (h, w) = self.offset[1:], plane.shape
        top, left = max(0, y), max(0, x)
        part = plane[top - y :, left - x :][: out.shape[0] - top, : out.shape[1] - left]
        out[top : min(out.shape[0], y + h), left : min(out.shape[1], x + w)] = part
        return out

    def describe(self, shape: Voxel, rest: str) -> str:
        """Says where it lies.

        Args:
          shape: of the stack.
          rest: what the voxels are that it does not cover.
        """
        assert self.shape is not None
        parts = []
        for what, first, own, whole in zip(
            ("slices", "rows", "columns"), self.offset, shape, self.shape, strict=True
        ):
            parts.append(f"{what} {max(0, first)}-{min(whole, first + own) - 1}")
        place = ",".join(map(str, self.offset))
        return f"placed at voxel {place} (z,y,x; {self.why}): {', '.join(parts)}; {rest}"


EVERYWHERE = Placement()


@dataclass(frozen=True)
class LabelPlacing:
    """Opens labels and says where they lie.

    Attributes:
      images: what they label.
      voxel_size: of the images, nm, zyx, as taken.
      axes: `--axes`, for labels that record none and whose shape leaves no doubt.
      labels_axes: `--labels_axes` by structure, `ALL` for those that are not listed.
      offsets: `--labels_offset` by structure, likewise.
      trust_flag: `--trust_flag`.
      mrc_bytes: `--mrc_bytes`.
    """

    images: SliceSource
    voxel_size: tuple[float, float, float]
    axes: str | None = None
    labels_axes: Mapping[str, str] = field(default_factory=dict)
    offsets: Mapping[str, Voxel] = field(default_factory=dict)
    trust_flag: bool = False
    mrc_bytes: str | None = None

    def open(self, name: str, path: Location) -> SliceSource:
        """The labels of a structure, in the order of axes that they record or a flag gives.

        Raises:
          InputError: they cannot be used, or nothing says which axis is which.
        """
        own = self.labels_axes.get(name, self.labels_axes.get(ALL))
        if own is not None:
            given = GivenAxes(own, flag="labels_axes", trusted=self.trust_flag)
            return open_source(path, label=True, axes=given, mrc_bytes=self.mrc_bytes)
        given = GivenAxes(self.axes, flag="labels_axes", only_missing=True)
        source = open_source(path, label=True, axes=given, mrc_bytes=self.mrc_bytes)
        if source.axes is None and source.axes_from == f"--axes={self.axes}":
            self._check_shape_tells(source)
        return source

    def _check_shape_tells(self, source: SliceSource) -> None:
        """Axes that are those of other files must at least be the only ones that fit."""
        own, theirs = (_times(s.shape) for s in (source, self.images))
        if source.shape != self.images.shape:
            raise InputError(
                f"{source.path}: does not record which axis is which; read with --axes={self.axes}"
                f" it has {own} voxels (z, y, x), the images have {theirs}: give its own, such as"
                " --labels_axes=zyx"
            )
        if len(set(source.shape)) < 3:
            raise InputError(
                f"{source.path}: does not record which axis is which, and its shape ({own}) does"
                " not tell whether they lie as those of the images: give them, such as"
                f" --labels_axes={self.axes}{'' if self.axes == 'zyx' else ' or --labels_axes=zyx'}"
            )

    def named(self) -> tuple[tuple[str, Mapping[str, object]], ...]:
        """Flags and what they say of structures by name, to be checked against these."""
        apart = (ALL, IGNORE)
        return tuple(
            (flag, {name: value for name, value in given.items() if name not in apart})
            for flag, given in (("labels_axes", self.labels_axes), ("labels_offset", self.offsets))
        )

    def place(self, name: str, source: SliceSource) -> Placement:
        """Where the first voxel of a stack lies; `EVERYWHERE` for folders and whole stacks.

        Prints a warning where a doubt remains that the user may have settled before.

        Raises:
          InputError: voxels of another size, or a position that cannot be used.
        """
        self._check_voxels(source)
        given = self.offsets.get(name, self.offsets.get(ALL))
        if source.has_files:
            if name in self.offsets:
                raise InputError(
                    f"--labels_offset={name}=…: {source.path} is a folder, whose files say which"
                    " slices they label; the flag is for stacks"
                )
            return EVERYWHERE
        if given is None:
            given = self._recorded_place(source)
            why = "from what both record"
        else:
            why = "--labels_offset"
        if given is None or (given == (0, 0, 0) and source.shape == self.images.shape):
            return EVERYWHERE
        return self._placed(source, Placement(given, self.images.shape, why))

    def _placed(self, source: SliceSource, placement: Placement) -> Placement:
        pairs = list(zip(placement.offset, source.shape, self.images.shape, strict=True))
        if any(first >= whole or first + own <= 0 for first, own, whole in pairs):
            raise InputError(
                f"{source.path}: begins at voxel {_voxel(placement.offset)} of the images (z, y, x;"
                f" {placement.why}), wholly outside their {_times(self.images.shape)} voxels;"
                f" {_WAYS_OUT}"
            )
        if any(first < 0 or first + own > whole for first, own, whole in pairs):
            print(f"warning: {source.path} reaches beyond the images; that part is not used")
        return placement

    def _recorded_place(self, source: SliceSource) -> Voxel | None:
        """From the difference of what both record; None where there is nothing to move."""
        own, theirs = source.offset, self.images.offset
        if own is None or (theirs is None and own == (0, 0, 0)):
            return None
        if theirs is None:
            self._warn_of_one_side(source)
            return None
        z, y, x = (a - b for a, b in zip(own, theirs, strict=True))
        if all(abs(step) <= _TOLERANCE for step in (z, y, x)):
            return None
        said = (
            f"{source.path}: begins at voxel {_voxel(own)} (z, y, x) by its record, the images at"
            f" {_voxel(theirs)}"
        )
        if not all(math.isfinite(step) for step in (z, y, x)):
            raise InputError(
                f"{source.path}: it or the images record a position that is no number of voxels"
                f" (a size or unit beside it is missing); {_WAYS_OUT}"
            )
        if not (source.offset_is_certain and self.images.offset_is_certain):
            raise InputError(f"{said}, and programs differ in what they mean by it; {_WAYS_OUT}")
        whole = (round(z), round(y), round(x))
        if any(abs(a - b) > _TOLERANCE for a, b in zip((z, y, x), whole, strict=True)):
            raise InputError(f"{said}, which is not a whole number of voxels apart; {_WAYS_OUT}")
        return whole

    def _warn_of_one_side(self, source: SliceSource) -> None:
        """A position beside images that have none: it says little if the shapes agree."""
        assert source.offset is not None
        said = f"{source.path} records that it begins at voxel {_voxel(source.offset)} (z,y,x)"
        if source.shape != self.images.shape:
            raise InputError(f"{said}, and the images record no position; {_WAYS_OUT}")
        print(
            f"warning: {said}, the images record no position; as both have the same shape, it is"
            " laid on the first voxel; --labels_offset=z,y,x says otherwise"
        )

    def _check_voxels(self, source: SliceSource) -> None:
        own, theirs = source.voxel_size, self.images.voxel_size
        if source.bare_size is not None and self.images.bare_size is not None:
            own, theirs, unit = source.bare_size, self.images.bare_size, "of no unit"
            taken, matters = theirs, True
        else:
            taken, unit, matters = self.voxel_size, "nm", None not in theirs
        if _same(own, taken) or (matters and _same(own, theirs)):
            return
        said = f"{source.path} records voxels of {lengths(own)} {unit} (z,y,x)"
        if self.trust_flag or _same(own, theirs):
            print(f"warning: {said}; those of the images are taken, {lengths(taken)} {unit}")
            return
        raise InputError(
            f"{said}, the images {self.images.path} have {lengths(taken)} {unit}; resample the"
            " labels to the voxels of the images, or add --trust_flag if what the labels record"
            " is wrong"
        )


def _same(own: VoxelSize, theirs: VoxelSize) -> bool:
    return all(same_length(a, b) for a, b in zip(own, theirs, strict=True))


_WAYS_OUT = (
    "say where its first voxel lies in the images: --labels_offset=0,0,0 lays it on their first"
    " voxel"
)


def _times(shape: Voxel) -> str:
    return " x ".join(map(str, shape))


def _voxel(offset: tuple[float, ...]) -> str:
    return ",".join("?" if math.isnan(value) else f"{value:.6g}" for value in offset)
