"""The loss of training: what each way of treating rare classes amounts to, and R-Drop."""

import math

import numpy as np
import pytest
import timm
import torch
from tables import class_space
from torch.nn import functional as F

from foldcraft.common.errors import FoldcraftError
from foldcraft.training.losses import ClassLoss, TrainingLoss, check_has_dropout, rdrop_loss, training_loss

WAYS = ["none", "weighted", "sampler", "focal", "logit_adjusted"]
COUNTS = np.array([60, 30, 10])


def loss(imbalance: str, counts: np.ndarray = COUNTS, smoothing: float = 0.0) -> TrainingLoss:
    return training_loss(
        class_space(len(counts)), np.repeat(np.arange(len(counts)), counts), imbalance, smoothing, "cpu"
    )


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(size)
    return torch.randn(size, 3, generator=rng), torch.randint(0, 3, (size,), generator=rng)


def log_probs(*p: float) -> torch.Tensor:
    return torch.tensor([p]).log()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("imbalance", ["none", "weighted", "sampler", "logit_adjusted"])
def test_balanced_classes_are_cross_entropy(imbalance: str, smoothing: float) -> None:
    logits, targets = batch()
    soft = F.one_hot(targets, 3).float().lerp(torch.full((8, 3), 1 / 3), 0.3)
    for these in (targets, soft):
        wanted = F.cross_entropy(logits, these, label_smoothing=smoothing)
        torch.testing.assert_close(loss(imbalance, np.full(3, 7), smoothing)(logits, these), wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_without_focus_is_cross_entropy(smoothing: float) -> None:
    logits, targets = batch()
    unfocused = ClassLoss(smoothing, weights=torch.ones(3), focus=0.0)  # weights, to go the long way
    nearly = ClassLoss(smoothing, focus=1e-6)
    wanted = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(unfocused(logits, targets), wanted)
    torch.testing.assert_close(nearly(logits, targets), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("imbalance", WAYS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_mixed_image_is_its_classes_in_their_shares(imbalance: str, smoothing: float) -> None:
    logits, _ = batch(1)
    one = loss(imbalance, smoothing=smoothing)
    mixed = one(logits, torch.tensor([[0.25, 0.0, 0.75]]))
    alone = [one(logits, torch.tensor([label])) for label in (0, 2)]
    torch.testing.assert_close(mixed, 0.25 * alone[0] + 0.75 * alone[1])


def test_weights_are_one_in_the_mean_over_the_rows() -> None:
    weighted = loss("weighted")
    torch.testing.assert_close(weighted.weights, torch.tensor([100 / 180, 100 / 90, 100 / 30]))
    assert float((weighted.weights * torch.tensor(COUNTS)).sum()) == pytest.approx(100)
    value = weighted(log_probs(0.5, 0.3, 0.2).repeat(2, 1), torch.tensor([0, 2]))
    assert float(value) == pytest.approx((100 / 180 * -math.log(0.5) + 100 / 30 * -math.log(0.2)) / 2)


def test_a_frequent_class_stays_the_best_answer_to_its_own_images() -> None:
    """The smoothing of rare, heavy classes must not outweigh the label, as with torch's own weights it does."""
    counts, logits, label = np.array([900, 90, 10]), torch.zeros(1, 3, requires_grad=True), torch.tensor([0])
    loss("weighted", counts, smoothing=0.1)(logits, label).backward()
    assert logits.grad.argmin() == 0
    weights = loss("weighted", counts).weights
    (torchs,) = torch.autograd.grad(F.cross_entropy(logits, label, weights, label_smoothing=0.1), logits)
    assert torchs.argmin() == 2


def test_focal_loss_by_hand() -> None:
    value = loss("focal")(log_probs(0.7, 0.2, 0.1), torch.tensor([0]))
    assert float(value) == pytest.approx(-(0.3**2) * math.log(0.7), rel=1e-5)
    smoothed = loss("focal", smoothing=0.3)(log_probs(0.7, 0.2, 0.1), torch.tensor([0]))
    spread = -0.8 * math.log(0.7) - 0.1 * math.log(0.2) - 0.1 * math.log(0.1)
    assert float(smoothed) == pytest.approx(0.3**2 * spread, rel=1e-5)


def test_logit_adjustment_leaves_the_prior_out_of_the_net() -> None:
    """A net that knows nothing gives equal logits, and the loss is then the entropy that the classes have."""
    adjusted = loss("logit_adjusted")
    value = adjusted(torch.zeros(100, 3), torch.arange(3).repeat_interleave(torch.tensor(COUNTS)))
    assert float(value) == pytest.approx(-sum(p * math.log(p) for p in (0.6, 0.3, 0.1)))
    assert float(adjusted(torch.zeros(1, 3), torch.tensor([2]))) == pytest.approx(-math.log(0.1))


@pytest.mark.parametrize("imbalance", WAYS)
def test_a_class_that_the_rows_lack_does_no_harm(imbalance: str) -> None:
    logits, targets = batch()
    logits.requires_grad_()
    value = loss(imbalance, np.array([5, 0, 3]), smoothing=0.1)(logits, targets)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_rdrop_by_hand() -> None:
    logits = torch.cat([log_probs(0.6, 0.3, 0.1), log_probs(0.5, 0.3, 0.2)])
    losses = [-math.log(0.6), -math.log(0.5)]
    divergences = [
        0.6 * math.log(0.6 / 0.5) + 0.1 * math.log(0.1 / 0.2),
        0.5 * math.log(0.5 / 0.6) + 0.2 * math.log(0.2 / 0.1),
    ]
    value = rdrop_loss(loss("none"), logits, torch.tensor([0]), rdrop=3.0)
    assert float(value) == pytest.approx(sum(losses) / 2 + 3 * sum(divergences) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "drop"), [("test_resnet", "drop_rate"), ("test_vit", "drop_path_rate"), ("test_vit", "drop_rate")]
)
def test_a_net_that_draws_can_have_rdrop(name: str, drop: str) -> None:
    model = timm.create_model(name, **{drop: 0.1}).eval()
    before = torch.get_rng_state()
    check_has_dropout(model, 160)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_net_that_draws_nothing_cannot(name: str) -> None:
    with pytest.raises(FoldcraftError, match=r"regularize\.rdrop.*backbone\.drop"):
        check_has_dropout(timm.create_model(name), 160)
