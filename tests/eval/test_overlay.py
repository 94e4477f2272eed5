import numpy as np
import pytest
from matplotlib import image as images

from vemseg_jax.eval import overlay


def has_colour(picture, colour):
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return bool((np.abs(picture[..., :3] - rgb).max(-1) < 0.02).any())


def square(h, w, start, stop):
    mask = np.zeros((h, w), bool)
    mask[start:stop, start:stop] = True
    return mask


def grey(h, w):
    return np.random.default_rng(0).integers(0, 255, (h, w), np.uint8)


def test_shrink_takes_block_means():
    plane = np.arange(5 * 7).reshape(5, 7)
    expected = plane[:4, :6].reshape(2, 2, 3, 2).mean((1, 3))
    np.testing.assert_array_equal(overlay.shrink(plane, 2), expected)
    np.testing.assert_array_equal(overlay.shrink(plane, 1), plane)
    assert overlay.shrink(np.ones((2, 90)), 4).shape == (1, 22)


@pytest.mark.parametrize(
    ("width", "length"), [(10_000, 2000), (4000, 1000), (21_000, 5000), (390, 50), (3, 0.5)]
)
def test_scale_bar_is_round(width, length):
    assert overlay.scale_bar(width) == pytest.approx(length)


@pytest.mark.parametrize("panels", [1, 3, 4])
@pytest.mark.parametrize(("shape", "pixel_size"), [((60, 90), (20.0, 20.0)), ((40, 30), (8, 16))])
def test_picture_has_the_size_it_says(tmp_path, panels, shape, pixel_size):
    mask = square(*shape, 10, 25)
    panel = overlay.Panel(grey(*shape), "z = 1", [overlay.Outline("nuclei", mask, mask)])
    overlay.draw_overlay(tmp_path / "o.png", [panel] * panels, pixel_size=pixel_size)
    picture = images.imread(tmp_path / "o.png")
    size = overlay.panel_size(shape, pixel_size=pixel_size)
    assert picture.shape[:2] == overlay.figure_size(panels, size, entries=2)
    assert max(size) == overlay.PANEL_PIXELS


def test_big_slices_are_shrunk(tmp_path):
    shape = (1000, 2000)
    mask = square(*shape, 200, 700)
    panel = overlay.Panel(grey(*shape), "z = 1", [overlay.Outline("nuclei", mask, mask)])
    overlay.draw_overlay(tmp_path / "o.png", [panel], pixel_size=(16.0, 16.0))
    assert images.imread(tmp_path / "o.png").shape[1] < overlay.PANEL_PIXELS + 100


def test_every_outline_has_its_colour(tmp_path):
    outlines = [
        overlay.Outline("nuclei", square(60, 60, 5, 40), square(60, 60, 10, 50)),
        overlay.Outline("nucleoli", square(60, 60, 15, 20), square(60, 60, 22, 28), colours=1),
    ]
    panel = overlay.Panel(grey(60, 60), "z = 1", outlines)
    overlay.draw_overlay(tmp_path / "o.png", [panel], pixel_size=(16.0, 16.0))
    picture = images.imread(tmp_path / "o.png")
    assert picture.shape[:2] == overlay.figure_size(1, (900, 900), entries=4)
    legend = 44 + 900
    for pair in overlay.PAIRS[:2]:
        for colour in pair:
            assert has_colour(picture[:legend], colour)
            assert has_colour(picture[legend:], colour)
    assert not has_colour(picture, overlay.PAIRS[2][0])


def test_outline_lies_where_the_mask_is(tmp_path):
    truth = square(90, 90, 30, 60)
    outline = overlay.Outline("nuclei", truth, np.zeros((90, 90), bool))
    overlay.draw_overlay(
        tmp_path / "o.png",
        [overlay.Panel(np.zeros((90, 90), np.uint8), "z = 1", [outline])],
        pixel_size=(16.0, 16.0),
    )
    picture = images.imread(tmp_path / "o.png")[:, 16:-16]
    rgb = np.array([int(overlay.PAIRS[0][0][i : i + 2], 16) / 255 for i in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(picture[44:944, :, :3] - rgb).max(-1) < 0.02)
    for low, high in ((rows.min(), rows.max()), (columns.min(), columns.max())):
        assert abs(low - 300) < 6
        assert abs(high - 600) < 6


def test_ignored_pixels_are_tinted(tmp_path):
    mask = square(60, 60, 5, 40)
    outlines = [overlay.Outline("nuclei", mask, mask)]
    for name, ignored in (("with", square(60, 60, 45, 55)), ("without", None)):
        panel = overlay.Panel(grey(60, 60), "z = 1", outlines, ignored=ignored)
        overlay.draw_overlay(tmp_path / f"{name}.png", [panel], pixel_size=(16.0, 16.0))
    tinted, plain = (images.imread(tmp_path / f"{n}.png")[..., :3] for n in ("with", "without"))

    def bluish(picture):
        part = picture[44 + 680 : 44 + 820, 16 + 680 : 16 + 820]
        return float((part[..., 2] - part[..., 0]).mean())

    assert bluish(tinted) > 0.05
    assert abs(bluish(plain)) < 0.01


@pytest.mark.parametrize("value", [False, True])
def test_empty_full_and_constant_slices_are_drawn(tmp_path, value):
    mask = np.full((20, 20), value)
    panel = overlay.Panel(np.zeros((20, 20), np.uint8), "z", [overlay.Outline("n", mask, mask)])
    overlay.draw_overlay(tmp_path / "o.png", [panel], pixel_size=(4.0, 4.0))
    assert (tmp_path / "o.png").stat().st_size > 0


def test_what_fills_the_slice_is_seen(tmp_path):
    """A network that finds the structure everywhere leaves no empty picture."""
    everywhere = np.ones((60, 60), bool)
    outline = overlay.Outline("nuclei", square(60, 60, 15, 20), everywhere)
    panel = overlay.Panel(grey(60, 60), "z = 0", [outline])
    overlay.draw_overlay(tmp_path / "o.png", [panel], pixel_size=(16.0, 16.0))
    picture = images.imread(tmp_path / "o.png")
    assert has_colour(picture[: 44 + 900], overlay.PAIRS[0][1])
