"""What the phantom's biopsies are made of, and the configuration of a phantom."""

import dataclasses
import math

from vemseg_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Preset:
    """One biopsy. Lengths in nm, greys in 0-255 (resin is light), fractions in 0-1."""

    diameter: float = 6000.0  # of a nucleus
    elongation: float = 0.16  # relative spread of the semi-axes
    wobble: tuple[float, float] = (260.0, 50.0)  # displacement of surfaces, coarse and fine
    notch: float = 0.3  # share of nuclei with a deep indentation
    nucleoli: tuple[int, int] = (1, 2)  # per nucleus, inclusive
    nucleolus_radius: tuple[float, float] = (760.0, 960.0)
    nucleolus_stretch: float = 0.12
    nucleolus_wobble: float = 70.0
    nucleolus_grey: tuple[float, float] = (90.0, 106.0)
    nucleolus_patches: float = 12.0  # grey levels of its texture
    vacuoles: float = 0.0  # how readily a nucleolus has light holes
    nucleus_grey: tuple[float, float] = (150.0, 182.0)  # euchromatin, varies by nucleus
    chromatin_depth: float = 62.0  # heterochromatin is this much darker
    chromatin_level: float = 0.75  # the higher, the less heterochromatin
    chromatin_size: float = 340.0
    cytoplasm_grey: tuple[float, float] = (128.0, 188.0)  # varies by cell
    cytoplasm_patches: float = 8.0  # slow variation within a cell
    granules: float = 15.0
    reticulum: float = 44.0  # how dark its membranes are
    reticulum_share: float = 0.0  # the higher, the more of the cytoplasm holds reticulum
    mitochondria: float = 0.62  # the higher, the more
    mitochondrion_grey: tuple[float, float] = (88.0, 118.0)
    vesicles: float = 0.45
    gap: float = 0.0  # the higher, the more extracellular space
    noise: float = 9.0  # standard deviation of the shot noise at grey 150
    curtains: float = 3.0
    drift: float = 4.0  # brightness from slice to slice
    contrast: float = 1.0


PRESETS: dict[str, Preset] = {
    "biopsy1": Preset(),
    "biopsy2": Preset(
        diameter=6200.0,
        elongation=0.22,
        wobble=(380.0, 75.0),
        notch=0.7,
        nucleolus_radius=(760.0, 1060.0),
        nucleolus_grey=(78.0, 96.0),
        nucleus_grey=(126.0, 176.0),
        chromatin_depth=56.0,
        chromatin_level=0.45,
        chromatin_size=430.0,
        cytoplasm_grey=(114.0, 194.0),
        granules=18.0,
        reticulum=52.0,
        reticulum_share=0.7,
        mitochondria=0.52,
        gap=0.5,
        noise=12.0,
        curtains=2.0,
        drift=6.0,
        contrast=0.88,
    ),
    "biopsy3": Preset(
        diameter=6000.0,
        elongation=0.18,
        wobble=(300.0, 60.0),
        notch=0.45,
        nucleoli=(1, 4),
        nucleolus_radius=(420.0, 940.0),
        nucleolus_stretch=0.3,
        nucleolus_wobble=130.0,
        nucleolus_grey=(82.0, 122.0),
        nucleolus_patches=20.0,
        vacuoles=1.0,
        nucleus_grey=(148.0, 190.0),
        chromatin_depth=60.0,
        chromatin_level=0.95,
        chromatin_size=280.0,
        cytoplasm_grey=(130.0, 196.0),
        cytoplasm_patches=9.0,
        reticulum_share=-0.3,
        mitochondria=0.72,
        mitochondrion_grey=(84.0, 112.0),
        vesicles=0.6,
        gap=0.25,
        noise=8.0,
        curtains=4.5,
        drift=5.0,
        contrast=1.08,
    ),
}


@dataclasses.dataclass(frozen=True)
class PhantomConfig:
    """What to make: `preset`, `shape` in voxels zyx, `voxel_size` in nm zyx, and the seed.

    Raises:
      InputError: unknown preset, sizes that are not positive, a seed outside [0, 2**32).
    """

    preset: str = "biopsy1"
    shape: tuple[int, int, int] = (48, 768, 1024)
    voxel_size: tuple[float, float, float] = (40.0, 16.0, 16.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(
                f"phantom preset {self.preset!r} is unknown; choose from: {', '.join(PRESETS)}"
            )
        if len(self.shape) != 3 or any(int(n) != n or n < 1 for n in self.shape):
            raise InputError(
                f"phantom shape {self.shape}: need three positive whole numbers, z,y,x"
            )
        if len(self.voxel_size) != 3 or not all(0 < s < math.inf for s in self.voxel_size):
            raise InputError(
                f"phantom voxel_size {self.voxel_size}: need three positive numbers of nm, z,y,x"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"phantom seed {self.seed}: need a whole number from 0 to 2**32 - 1")

    @property
    def tissue(self) -> Preset:
        """The preset of this name."""
        return PRESETS[self.preset]

    @property
    def stream(self) -> int:
        """The key of all random numbers: presets share no tissue, even at the same seed."""
        return self.seed + (list(PRESETS).index(self.preset) << 32)
