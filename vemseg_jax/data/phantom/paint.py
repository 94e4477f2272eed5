"""The greys of the phantom: what its tissue looks like on one slice, and the microscope's part.

Lengths are in nm, coordinates in the order zyx.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from vemseg_jax.data.phantom.bodies import Bodies, bodies_near
from vemseg_jax.data.phantom.presets import PhantomConfig
from vemseg_jax.data.phantom.texture import (
    SPLINE_VARIANCE,
    Noise,
    PlaneGrid,
    generator,
    line,
    ramp,
    spline_weights,
    spread,
)


class Painter:
    """The grey values of one slice, painted block by block of rows."""

    def __init__(
        self,
        config: PhantomConfig,
        *,
        z: int,
        grid: PlaneGrid,
        fields: dict[str, np.ndarray],
        step: tuple[float, float],
    ) -> None:
        preset = self.preset = config.tissue
        self.grid = grid
        self.pixel = math.sqrt(grid.step[0] * grid.step[1])
        self.fields, self.step = fields, step
        self.z = (z + 0.5) * config.voxel_size[0]
        self._seed = config.stream
        self._noise: dict[int, Noise] = {}
        self._shot = generator(config.stream, 1, z)
        jitter = self._shot.standard_normal(2)
        self.brightness = preset.drift * (
            self._drift(2, 2500) + 0.5 * self._drift(3, 300) + 0.35 * jitter[0]
        )
        self.contrast = preset.contrast * (1 + 0.05 * self._drift(4, 2500) + 0.015 * jitter[1])
        self.mitochondria = self._bodies(30, 560.0, (260.0, 760.0), (0.28, 0.5))
        self.vesicles = self._bodies(31, 330.0, (35.0, 190.0), (0.7, 1.0))
        self.vesicles = self._fit(self.vesicles.apart_from(self.mitochondria), None)
        self.mitochondria = self._fit(self.mitochondria, "mitochondria")

    def _drift(self, channel: int, length: float) -> float:
        weights, first = spline_weights(np.array([self.z / length]))
        draws = [
            generator(self._seed, channel, int(first[0]) + k).standard_normal() for k in range(4)
        ]
        return float(weights[0] @ draws) / math.sqrt(SPLINE_VARIANCE ** (1 / 3))

    def _bodies(self, channel: int, pitch: float, longest: Any, aspect: Any) -> Bodies:
        return bodies_near(
            self.grid,
            seed=self._seed,
            channel=channel,
            z=self.z,
            pitch=pitch,
            longest=longest,
            aspect=aspect,
        )

    def noise(
        self, channel: int, spacing: float | tuple[float, float, float], rows: slice, **options: Any
    ) -> np.ndarray:
        """The field `channel`, drawn once per slice."""
        if channel not in self._noise:
            size = spacing if isinstance(spacing, tuple) else (spacing,) * 3
            self._noise[channel] = Noise(self.grid, self._seed, self.z, channel, size)
        return self._noise[channel](rows, **options)

    def _slope(self, name: str, axis: int, rows: slice) -> np.ndarray:
        return spread(self.fields[name], self.grid, self.step, rows=rows, derivative=axis)

    def paint(self, smooth: dict[str, np.ndarray], rows: slice) -> np.ndarray:
        """The image on these rows, `[rows, x]` uint8; blocks must come from the top down."""
        grains = 0.75 * self.noise(40, 48, rows) + 0.65 * self.noise(41, 24, rows)
        soft = max(self.pixel, 10.0)
        image = self._cytoplasm(smooth, grains, rows)
        self._draw_bodies(image, rows)
        outside = np.clip(0.5 - smooth["cell"] / soft, 0, 1)
        image += outside * (self._outside(rows) - image)
        image -= 62 * line(smooth["cell"] - 8, width=14, pixel=self.pixel)
        inside = np.clip(0.5 - smooth["nucleus"] / soft, 0, 1)
        image += inside * (self._nucleus(smooth, grains, rows) - image)
        for depth in (6, 42):
            image -= 58 * line(smooth["nucleus"] + depth, width=13, pixel=self.pixel)
        return self._acquire(image, smooth, rows)

    def _outside(self, rows: slice) -> np.ndarray:
        return 205 + 9 * self.noise(42, (600, 70, 70), rows)

    def _nucleus(
        self, smooth: dict[str, np.ndarray], grains: np.ndarray, rows: slice
    ) -> np.ndarray:
        preset, d, n = self.preset, smooth["nucleus"], smooth["nucleolus"]
        size = preset.chromatin_size
        fine = self.noise(44, 0.42 * size, rows)
        mixed = 0.85 * self.noise(43, size, rows) + 0.5 * fine
        # Heterochromatin lines the envelope, with breaks at the pores, and the nucleoli.
        rim = np.exp(np.minimum(d, 0) * np.float32(1 / 120)) * 1.9
        collar = np.exp(-np.maximum(n, 0) * np.float32(1 / 130)) * 1.3
        dense = ramp(mixed + rim + collar, preset.chromatin_level, preset.chromatin_level + 0.75)
        image = smooth["nucleus_grey"] - preset.chromatin_depth * dense
        image += (5 + 2 * dense) * grains
        nucleolus = smooth["nucleolus_grey"] + preset.nucleolus_patches * self.noise(45, 120, rows)
        nucleolus += 7 * grains
        if preset.vacuoles > 0:
            holes = ramp(self.noise(46, 230, rows), 1.75 - 0.5 * preset.vacuoles, 2.0)
            nucleolus += 55 * holes
        # The edge of a nucleolus is granular, not sharp.
        body = np.clip(0.5 - (n + 12 * grains) / 60, 0, 1)
        return image + body * (nucleolus - image)

    def _cytoplasm(
        self, smooth: dict[str, np.ndarray], grains: np.ndarray, rows: slice
    ) -> np.ndarray:
        preset = self.preset
        image = smooth["cytoplasm_grey"] - preset.granules * ramp(grains, 0.1, 1.6)
        image += 0.35 * preset.granules * grains
        image += 5 * self.noise(49, 170, rows)
        # Reticulum: sheets where a smooth field crosses whole numbers, so they run in parallel,
        # and mostly around the nucleus.
        field = smooth["nucleus"] / 330 + 1.1 * self.noise(47, 560, rows)
        steep = np.full_like(field, 4e-4)
        for axis in (0, 1):
            slope = self._slope("nucleus", axis, rows) / 330
            steep = np.hypot(steep, slope + 1.1 * self.noise(47, 560, rows, derivative=axis))
        sheet = np.abs(field - np.round(field)) / steep
        there = ramp(smooth["reticulum"] + 0.9 * self.noise(48, 300, rows), 0.15, 0.8)
        image += 10 * there * line(sheet, width=40, pixel=self.pixel)
        image -= preset.reticulum * there * line(sheet - 24, width=20, pixel=self.pixel)
        # Ribosomes: dots, denser along the reticulum.
        dots = ramp(self.noise(52, 30, rows), 1.2 - 0.5 * there, 2.2)
        return image - 2.2 * preset.granules * dots

    def _look_up(self, name: str, centre: np.ndarray) -> np.ndarray:
        """The field at the nearest coarse point to each centre, `[n]`."""
        nodes = self.fields[name]
        y, x = (
            np.clip(np.rint(centre[:, i + 1] / self.step[i]).astype(int) + 1, 0, nodes.shape[i] - 1)
            for i in (0, 1)
        )
        return nodes[y, x]

    def _fit(self, bodies: Bodies, wanted: str | None) -> Bodies:
        """Shrinks bodies that have no room in the cytoplasm, and drops those with next to none.

        The scale follows the slice's fields, which are smooth in z, so no body pops up.
        """
        centre = bodies.centre
        room = np.minimum(self._look_up("nucleus", centre), self._look_up("cell", centre)) - 30
        scale = np.clip(room / bodies.axes.min(axis=1), 0, 1)
        if wanted is None:
            scale *= bodies.choice <= self.preset.vesicles
        else:
            scale *= np.clip(4 * (self._look_up(wanted, centre) - bodies.choice), 0, 1)
        bodies = dataclasses.replace(bodies, axes=bodies.axes * scale[:, None])
        return bodies.select(scale >= 0.25)

    def _draw_bodies(self, image: np.ndarray, rows: slice) -> None:
        """Paints the bodies that meet this block."""
        dy, dx = self.grid.step
        for bodies, draw in (
            (self.vesicles, self._vesicle),
            (self.mitochondria, self._mitochondrion),
        ):
            half = 1.3 * bodies.half_extent()[:, 1:] + 40
            low = np.floor((bodies.centre[:, 1:] - half) / (dy, dx)).astype(int)
            high = np.ceil((bodies.centre[:, 1:] + half) / (dy, dx)).astype(int)
            low = np.maximum(low, (rows.start, 0))
            high = np.minimum(high, (rows.stop, image.shape[1]))
            for k in np.flatnonzero((low < high).all(axis=1)).tolist():
                (top, left), (bottom, right) = low[k], high[k]
                y = (np.arange(top, bottom, dtype=np.float32) + 0.5) * np.float32(dy)
                x = (np.arange(left, right, dtype=np.float32) + 0.5) * np.float32(dx)
                own, depth = self._inside(bodies, k, y, x)
                patch = image[top - rows.start : bottom - rows.start, left:right]
                draw(patch, depth, own, bodies, k)

    def _inside(
        self, bodies: Bodies, k: int, y: np.ndarray, x: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Coordinates in the body's own axes, bent a little, and depth under its surface; nm."""
        turn, axes = bodies.turn[k].astype(np.float32), bodies.axes[k].astype(np.float32)
        dz, cy, cx = (np.float32(v) for v in (self.z - bodies.centre[k, 0], *bodies.centre[k, 1:]))
        own = [t[0] * dz + t[1] * (y[:, None] - cy) + t[2] * (x - cx) for t in turn]
        bend = np.float32(0.5 * (bodies.tone[k] - 0.5)) * axes[1]
        own[1] = own[1] + bend * np.square(own[0] / axes[0])
        rho = np.sqrt(sum(np.square(o / a) for o, a in zip(own, axes, strict=True)))
        return own, (1 - rho) * axes[1:].mean()

    def _mitochondrion(
        self, patch: np.ndarray, depth: np.ndarray, own: Any, bodies: Bodies, k: int
    ) -> None:
        low, high = self.preset.mitochondrion_grey
        grey = low + (high - low) * bodies.tone[k]
        period = 80 + 50 * bodies.choice[k]
        wave = own[0] * np.float32(2 * math.pi / period)
        wave += 1.1 * np.sin(own[1] * np.float32(1 / 60) + 9 * bodies.tone[k])
        wave += 0.8 * np.sin(own[0] * np.float32(1 / 170) + own[2] * np.float32(1 / 70))
        seen = math.exp(-((self.pixel / 45) ** 2)) * (10 + 16 * bodies.tone[k])
        broken = ramp(np.sin(own[1] * np.float32(1 / 80) + 0.5 * wave), -0.8, 0.3)
        inner = grey + seen * np.sin(wave) * broken * ramp(depth, 15, 60)
        inside = np.clip(0.5 + depth / max(self.pixel, 10.0), 0, 1)
        patch += inside * (inner - patch)
        patch -= 38 * line(depth - 8, width=20, pixel=self.pixel)

    def _vesicle(
        self, patch: np.ndarray, depth: np.ndarray, own: Any, bodies: Bodies, k: int
    ) -> None:
        del own
        inside = np.clip(0.5 + depth / max(self.pixel, 10.0), 0, 1)
        kind = bodies.choice[k] / max(self.preset.vesicles, 1e-6)
        if kind < 0.55:  # vesicle
            patch += inside * (168 + 40 * bodies.tone[k] - patch)
            patch -= 55 * line(depth - 5, width=14, pixel=self.pixel)
        elif kind < 0.8:  # lysosome
            patch += inside * (70 + 45 * bodies.tone[k] - patch)
        else:  # lipid
            patch += inside * (120 + 20 * bodies.tone[k] - patch)

    def _acquire(self, image: np.ndarray, smooth: dict[str, np.ndarray], rows: slice) -> np.ndarray:
        """Contrast, illumination, curtains and shot noise; then 8 bit."""
        preset = self.preset
        stripes = 0.8 * self.noise(50, (400, 60000, 45), rows) + self.noise(
            51, (900, 20000, 260), rows
        )
        image = (image - 145) * np.float32(self.contrast) + np.float32(145 + self.brightness)
        image += smooth["light"] + preset.curtains * stripes
        shot = self._shot.standard_normal(image.shape, dtype=np.float32)
        image += np.float32(preset.noise) * shot * np.sqrt(np.clip(image, 10, 255) / 150)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)
