"""The metric, as far as a description of the host names one."""

import re
from collections.abc import Sequence

from foldcraft.metrics import scores
from foldcraft.study.start.answers import Answer

# What descriptions say, the narrower phrase before the wider.
SAID = (
    (r"quadratic[ -]weighted[ -]kappa|\bqwk\b", "qwk"),
    (r"mean (?:average precision|ap) ?@ ?(\d+)|map ?@ ?(\d+)", "map_at_k"),
    (r"macro[ -]?(?:averaged )?f1|f1[- ]macro|macro[- ]f1", "macro_f1"),
    (r"micro[ -]?(?:averaged )?f1|mean f-?score|f1[- ]micro", "micro_f1"),
    (r"kullback|\bkl[ -]divergence", "kl"),
    (r"mean column-?wise (?:roc )?auc|column[ -]averaged auc", "roc_auc"),
    (r"area under the (?:roc|receiver)|roc[ -]?auc|\bauroc\b|\bauc\b", "roc_auc"),
    (r"root mean squared? log", "rmsle"),
    (r"root mean squared? error|\brmse\b", "rmse"),
    (r"mean absolute error|\bmae\b", "mae"),
    (r"log(?:arithmic)?[ -]?loss|cross[- ]entropy", "log_loss"),
    (r"balanced accuracy", "balanced_accuracy"),
    (r"mean average precision", "mean_average_precision"),
    (r"\baccuracy\b", "accuracy"),
    (r"\bf1\b|f1[- ]score", "macro_f1"),
)
BY_KIND = {  # where nothing is said
    "single": "macro_f1",
    "ordinal": "qwk",
    "multilabel": "mean_auc",
    "soft": "kl",
    "regression": "rmse",
    "multioutput": "mean_accuracy",
}


def told(texts: Sequence[str]) -> tuple[str, str, int]:
    """The metric that a description names, the words that name it, and its k; "" and 0 where none does.

    What stands near the word "evaluation" or "metric" comes first.
    """
    for text in texts:
        plain = re.sub(r"<[^>]+>", " ", text).casefold()
        near = [plain[m.start() : m.start() + 600] for m in re.finditer(r"evaluat|metric|judged|scored", plain)]
        for part in [*near, plain]:
            for pattern, name in SAID:
                if found := re.search(pattern, part):
                    k = next((int(group) for group in found.groups() if group), 0)
                    return name, found[0], k
    return "", "", 0


def likely(answer: Answer) -> object:
    """What such answers are often judged by."""
    if answer.form == "top_k":
        return {"name": "map_at_k", "k": answer.k or 5}
    by_form = {"lists": "sample_f1", "probability": "roc_auc", "probabilities": "log_loss"}
    if answer.kind == "multilabel" and answer.form == "probabilities":
        return "mean_auc"
    if answer.kind in ("single", "multilabel") and answer.form in by_form:
        return by_form[answer.form]
    return BY_KIND[answer.kind]


def suited(name: str, answer: Answer) -> str:
    """The metric by the name that it has for this kind of target; "" where it judges no such thing."""
    if name == "roc_auc":
        name = "mean_auc" if answer.kind == "multilabel" else name
    return name if name and answer.kind in scores.kinds_of(name) else ""
