"""`python -m tests.parity DIR [--only PATTERN]`."""

import argparse
import fnmatch
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from tests.parity import cps, dataset, functions, networks, senformer, tanimoto, targets
from tests.parity.result import Result

# A file's kind shows in its keys, so that files of other names are checked too.
CHECKS: tuple[tuple[Callable[[str], bool], Callable[..., Iterator[Result]]], ...] = (
    (lambda key: key == "config", networks.check_network),
    (lambda key: key.endswith("/dice_coef_loss"), functions.check_dice_losses),
    (lambda key: key == "mtsk_depth0", tanimoto.check_tanimoto_losses),
    (lambda key: key.endswith("/distance_raw"), targets.check_targets),
    (lambda key: key == "clamp/loss", senformer.check_senformer_loss),
    (lambda key: key == "image_down", functions.check_downsample),
    (lambda key: key == "norm_mean_std", dataset.check_dataset_item),
    (lambda key: key.endswith("/averaged_prob"), functions.check_sliding_window),
    (lambda key: key == "every_dice", functions.check_stack_dice),
    (lambda key: key == "schedule/epoch", functions.check_schedules),
    (lambda key: key.endswith("/boxes_y0x0y1x1"), cps.check_box_masks),
    (lambda key: key == "ul_images", cps.check_cps_step),
)


def find_check(keys: list[str]) -> Callable[..., Iterator[Result]]:
    """The check for a file with these keys."""
    for matches, check in CHECKS:
        if any(matches(key) for key in keys):
            return check
    raise KeyError("no check for this kind of file yet")


class Golden(dict):
    """The arrays of a golden file; remembers which of them were looked at."""

    def __init__(self, arrays: Mapping[str, np.ndarray] | Path):
        if isinstance(arrays, Path):
            with np.load(arrays, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        super().__init__(arrays)
        self.unread = set(self)

    def __getitem__(self, key: str) -> np.ndarray:
        # A float64 copy stands for the rounded one.
        self.unread -= {key, key.removeprefix("f64/")}
        return super().__getitem__(key)


# What a file says without asking for it: formulas beside stored weights, how far the teachers are
# from a threshold, counters, and biases of which Adam makes noise (cps.NO_GRADIENT).
REMARKS = re.compile(
    r"(.*/)?formula/.*|margin|.*num_batches_tracked|.*/params_after/.*double_conv\.[03]\.bias"
)


def check_file(golden: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """Compares every quantity of one golden file; one that is left over, and none at all, fail."""
    golden = golden if isinstance(golden, Golden) else Golden(golden)
    count = 0
    for result in find_check(list(golden))(golden):
        count += 1
        yield result
    left = sorted(key for key in golden.unread if not REMARKS.fullmatch(key))
    if left:
        yield Result(f"not compared: {', '.join(left)}", np.inf, 0)
    if not count:
        yield Result("nothing was compared", np.inf, 0)


def run(directory: Path, only: str = "*") -> bool:
    """Checks all files of a directory whose stem matches `only`; prints; True when all agree."""
    paths = sorted(p for p in directory.glob("*.npz") if fnmatch.fnmatch(p.stem, only))
    if not paths:
        print(f"no golden file matches {only!r} in {directory}", file=sys.stderr)
        return False
    good = True
    for path in paths:
        try:
            golden = Golden(path)
            for result in check_file(golden):
                good &= result.ok
                verdict = "ok" if result.ok else f"FAIL (over {result.tolerance:.1e})"
                print(f"{path.stem}  {result.what}  {result.error:.2e}  {verdict}", flush=True)
        except Exception as error:  # one broken file must not hide the others
            good = False
            print(f"{path.stem}  {type(error).__name__}: {error}  -  FAIL", flush=True)
            if not isinstance(error, KeyError):
                traceback.print_exc()
    return good


def main() -> None:
    """Parses the arguments and exits 0 when everything agrees."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("directory", type=Path, help="folder of golden .npz files")
    parser.add_argument("--only", default="*", help="glob over file stems, such as 'unet*'")
    arguments = parser.parse_args()
    with jax.default_matmul_precision("highest"):
        sys.exit(0 if run(arguments.directory, arguments.only) else 1)


if __name__ == "__main__":
    main()
