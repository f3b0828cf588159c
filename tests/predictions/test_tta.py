"""Views of test-time augmentation: they keep the shape, undo each other, and zoom about the centre."""

import pytest
import torch
from pydantic import ValidationError

from foldcraft.common.config import TTAConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.predictions.tta import FIXED, view

IMAGES = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", [8, 9, 20, 33])
@pytest.mark.parametrize("name", [*FIXED, "scale0.5", "scale0.83", "scale1", "scale1.2", "scale2", "hflip+scale1.15"])
def test_a_view_keeps_the_shape(name: str, side: int) -> None:
    images = torch.rand(2, 3, side, side)
    seen = view(name)(images)
    assert seen.shape == images.shape
    assert seen.isfinite().all()


@pytest.mark.parametrize("name", ["hflip", "vflip", "rot180"])
def test_twice_is_nothing(name: str) -> None:
    assert not torch.equal(view(name)(IMAGES), IMAGES)
    assert torch.equal(view(name)(view(name)(IMAGES)), IMAGES)


def test_fixed_views_are_what_they_are_called() -> None:
    assert torch.equal(view("identity")(IMAGES), IMAGES)
    assert torch.equal(view("hflip")(IMAGES)[..., 0], IMAGES[..., -1])
    assert torch.equal(view("vflip")(IMAGES)[..., 0, :], IMAGES[..., -1, :])
    assert torch.equal(view("rot90+rot270")(IMAGES), IMAGES)
    assert torch.equal(view("rot90+rot90")(IMAGES), view("rot180")(IMAGES))
    assert torch.equal(view("hflip+vflip")(IMAGES), view("rot180")(IMAGES))
    assert len({view(name)(IMAGES).numpy().tobytes() for name in FIXED}) == len(FIXED)


def test_joined_views_are_taken_from_left_to_right() -> None:
    joined = view("hflip+rot90")(IMAGES)
    assert torch.equal(joined, view("rot90")(view("hflip")(IMAGES)))
    assert not torch.equal(joined, view("rot90+hflip")(IMAGES))


def test_scale_one_is_the_image() -> None:
    torch.testing.assert_close(view("scale1")(IMAGES), IMAGES)
    torch.testing.assert_close(view("scale1.0+hflip")(IMAGES), view("hflip")(IMAGES))


@pytest.mark.parametrize(("name", "factor", "margin"), [("scale1.2", 1.2, 0), ("scale0.8", 0.8, 4)])
def test_scales_magnify_about_the_centre(name: str, factor: float, margin: int) -> None:
    """A slope of one a pixel becomes one of 1 / factor, the same in the middle; a border is mirrored."""
    slope = torch.arange(20.0).expand(1, 1, 20, 20)
    for images, seen in ((slope, view(name)(slope)), (slope.mT, view(name)(slope.mT).mT)):
        wanted = 9.5 + (torch.arange(20.0) - 9.5) / factor
        inner = slice(margin, 20 - margin)
        torch.testing.assert_close(seen[0, 0, 10, inner], wanted[inner], atol=0.1, rtol=0)
        assert images.mean().item() == pytest.approx(seen.mean().item(), abs=1e-3)
    if margin:
        seen = view(name)(IMAGES)
        torch.testing.assert_close(seen[..., :2], seen[..., 3:5].flip(3))
        torch.testing.assert_close(seen[..., -2:], seen[..., -5:-3].flip(3))


@pytest.mark.parametrize("name", ["", "hflop", "hflip+", "hflip+hflop", "scale", "scale0.4", "scale2.1", "scale-1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(FoldcraftError, match=r"tta\.views: no view"):
        view(name)


def test_a_view_counts_once() -> None:
    """Predictions of a view that is named twice could not be told from predictions of other rows."""
    with pytest.raises(ValidationError, match="hflip"):
        TTAConfig(views=["hflip", "identity", "hflip"])


def test_a_refusal_says_what_would_do() -> None:
    with pytest.raises(FoldcraftError, match="did you mean 'hflip'"):
        view("hflop")
    with pytest.raises(FoldcraftError, match=r"scale0\.5 to scale2"):
        view("identity+scale3")
