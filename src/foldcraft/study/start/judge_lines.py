"""Lines of a draft about the sample submission, the metric and the form of answers."""

from typing import Any

from foldcraft.common.errors import listing
from foldcraft.study.start import metric
from foldcraft.study.start.answers import Answer
from foldcraft.study.start.draft import CHECK, Draft
from foldcraft.study.start.inventory import Inventory
from foldcraft.study.start.roles import Roles


def sample(made: Draft, found: Roles) -> None:
    """The sample submission."""
    if found.sample:
        both = " (the test table itself)" if found.sample == found.test else ""
        several = f"{CHECK} {listing(list(found.rivals), 2)} may be it as well; " if found.rivals else ""
        made.add("sample", found.sample, f"{several}what the host wants back{both}")
    else:
        made.add("sample", "none", "no sample submission: ids and answers are written plainly")


def metric_of(made: Draft, inventory: Inventory, answer: Answer) -> None:
    """The metric that a description names, else a likely one."""
    name, words, k = metric.told(inventory.texts)
    name = metric.suited(name, answer)
    if name:
        value: Any = {"name": name, "k": k or answer.k or 5} if name == "map_at_k" else name
        made.add("metric", value, f"the description says {words!r}")
        return
    value = metric.likely(answer)
    made.add("metric", value, f"{CHECK} not told; {answer.in_words} are often judged by it")
    made.open.append("the metric: see the host's page; docs/metrics.md lists those there are")


def submission(made: Draft, answer: Answer) -> None:
    """What the sample leaves open of the answers."""
    if answer.form == "probability":
        made.add("submission", {"positive": answer.positive}, f"{CHECK} the class whose probability is asked for")
    elif answer.form == "labels" and answer.is_unclear:
        made.open.append("labels or probabilities: the sample has one cell for all rows, so the metric decides")
    elif answer.row:
        made.add("submission", {"row": answer.row}, f"a row for each of {listing(list(answer.parts), 3)}")
    elif answer.k:
        made.add("submission", {"form": "top_k", "k": answer.k}, f"{answer.k} labels a row, the likeliest first")
