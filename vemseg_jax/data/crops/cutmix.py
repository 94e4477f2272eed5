"""CutMix: boxes drawn on the device, and images mixed by them.

Source: Yun et al. 2019 (CutMix) and French et al. 2020 (its use for consistency in segmentation,
and the distribution of the boxes), as used by Pagano et al. 2023.
"""

import jax
import jax.numpy as jnp

# Smallest and largest share of the image that a box covers.
AREA = (0.25, 0.5)


def boxes_of(
    area: jax.Array, shape: jax.Array, place: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """Boxes inside an image from numbers in [0, 1).

    A box covers a = 0.25 + 0.25 `area` of the image; its height is a^`shape` of the image's and
    its width a^(1 - `shape`), so that all aspect ratios occur, each rounded to pixels; it lies
    at the share `place` of the room that is left.

    Args:
      area, shape: `[b]`.
      place: `[b, 2]`, y and x.
      size: height and width of the image in pixels.

    Returns:
      `[b, 4]`: first row, first column, one past the last row, one past the last column; whole
      numbers in floating point.
    """
    share = AREA[0] + (AREA[1] - AREA[0]) * area
    height = jnp.exp(shape * jnp.log(share))
    extent = jnp.round(jnp.stack([height, share / height], -1) * jnp.asarray(size))
    start = jnp.round((jnp.asarray(size) - extent) * place)
    return jnp.concatenate([start, start + extent], -1)


def box_masks(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`[b, h, w, 1]` float32, 1 inside each box of `[b, 4]`."""

    def inside(first: jax.Array, end: jax.Array, count: int) -> jax.Array:
        position = jnp.arange(count)
        return (position >= first[:, None]) & (position < end[:, None])

    rows, columns = (
        inside(boxes[:, 0], boxes[:, 2], size[0]),
        inside(boxes[:, 1], boxes[:, 3], size[1]),
    )
    return (rows[:, :, None] & columns[:, None])[..., None].astype(jnp.float32)


def draw_masks(key: jax.Array, count: int, size: tuple[int, int]) -> jax.Array:
    """`[count, h, w, 1]` masks of random boxes, a pure function of the key."""
    numbers = jax.random.uniform(key, (count, 4))
    boxes = boxes_of(numbers[:, 0], numbers[:, 1], numbers[:, 2:], size)
    return box_masks(boxes, size)


def mix(a: jax.Array, b: jax.Array, mask: jax.Array) -> jax.Array:
    """`b` inside the boxes and `a` outside; `mask` 0 or 1, broadcast over channels."""
    return jnp.where(mask == 1, b, a)


def halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and second half of a batch; an odd one's middle image is in neither."""
    half = x.shape[0] // 2
    return x[:half], x[x.shape[0] - half :]


def views(labelled: jax.Array | None, unlabelled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What is mixed: image k of the first view with image k of the second.

    The first halves of both batches, joined, and the second ones. Of an odd number of images one
    has no partner: the middle one of the labelled, the last one of the unlabelled (of 5, view b
    takes 3, 4 and 2, 3, as the reference does).

    Args:
      labelled: `[n, ...]`, or None where only unlabelled crops are mixed.
      unlabelled: `[m, ...]`.

    Returns:
      Two arrays `[n // 2 + m // 2, ...]`.
    """
    half = unlabelled.shape[0] // 2
    parts = [(unlabelled[:half], unlabelled[half : 2 * half])]
    if labelled is not None:
        parts.insert(0, halves(labelled))
    first, second = zip(*parts, strict=True)
    return jnp.concatenate(first), jnp.concatenate(second)


def mixing_order(key: jax.Array, volumes: int, crops: int) -> jax.Array:
    """In which order a batch of several volumes is halved, so that every pair of them is mixed.

    A batch holds the crops of one volume after the other. Halved like that, the box of a mixed
    crop would always show the same volume, and its surroundings another one. Here both halves
    hold every volume, as evenly as their number allows, and which crops are mixed is random: of
    one volume, and of two in either direction.

    Args:
      key: decides the order.
      volumes: how many there are.
      crops: of each.

    Returns:
      `[volumes * crops]` int32, positions in the batch.
    """
    count = volumes * crops
    turn, shuffle = jax.random.split(key)
    # One crop of each volume in turn, begun anywhere: any run of them is even.
    in_turn = jnp.arange(count, dtype=jnp.int32).reshape(volumes, crops).T.ravel()
    in_turn = jnp.roll(in_turn, jax.random.randint(turn, (), 0, count))
    half = count // 2
    return jnp.concatenate([in_turn[:half], jax.random.permutation(shuffle, in_turn[half:])])
