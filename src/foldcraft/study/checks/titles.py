"""The checks by name, in their order, and what each says when it passes; known before torch is imported."""

from collections.abc import Sequence

from foldcraft.common.errors import FoldcraftError, suggest

TITLES = {
    "folds": "folds share no group and fit the data",
    "pairs": "images and labels belong together",
    "preprocessing": "training and inference see the same pixels",
    "constants": "normalised as the weights want it",
    "draws": "every draw of the augmentation is another",
    "augmentation": "augmentation keeps labels",
    "pixels": "images tell more than the prior",
    "shuffled": "shuffled labels give chance",
    "first_loss": "the first loss is that of guessing",
    "modes": "training and evaluation mode",
    "statistics": "BatchNorm as the config says",
    "logits": "the net gives logits",
    "bias": "the head has a bias",
    "idle_bias": "no bias before a BatchNorm",
    "leaks": "images of a batch are independent",
    "gradients": "gradients are zeroed",
    "one_batch": "one batch is learned by heart",
    "repeatable": "the same answer twice",
    "alone": "the same answer alone and in a batch",
    "judged_alike": "inference predicts what was validated",
    "precision": "precision is good enough",
    "workers": "workers keep up with the net",
    "pinned": "memory is pinned for CUDA only",
    "waits": "no step waits for the device",
    "processes": "folds are processes",
}


def named(names: Sequence[str]) -> list[str]:
    """The checks of those names; all where none is named.

    Raises:
        FoldcraftError: no such check.
    """
    for name in names:
        if name not in TITLES:
            raise FoldcraftError(f"no check {name!r}", "--only", suggest(name, list(TITLES)))
    return list(names or TITLES)
