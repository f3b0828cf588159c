"""What predictions are: probabilities of classes, of labels by themselves, or values; the door to all three.

Predictions are stored in the form in which their mean is the right pool: log-probabilities, log-odds, values.
"""

from collections.abc import Sequence

from foldcraft.metrics.class_space import ClassSpace
from foldcraft.metrics.label_space import LabelSpace
from foldcraft.metrics.space import Cells, Link, Part, Space
from foldcraft.metrics.value_space import ValueSpace

__all__ = ["Cells", "ClassSpace", "LabelSpace", "Link", "Part", "Space", "ValueSpace", "of_form"]


def of_form(form: str, names: Sequence[str], widths: Sequence[int] = ()) -> Space:
    """The space of that form; of values without their units, which pooling does not need."""
    if form == ClassSpace.form:
        return ClassSpace(tuple(names), tuple(widths))
    return {space.form: space for space in (LabelSpace, ValueSpace)}[form](tuple(names))
