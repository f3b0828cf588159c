"""The form of a competition's submission, and whether its sample can be filled."""

import numpy as np

from foldcraft.data.competition import Competition
from foldcraft.data.submission_forms import inference
from foldcraft.data.submission_forms.form import Form


def of(competition: Competition) -> Form:
    """The form of a submission.

    Raises:
        FoldcraftError: as `inference.of`.
    """
    return inference.of(competition.answers.file_request)


def tried(competition: Competition) -> Form:
    """The form, once the sample has been filled by it with what is known of a row without its image.

    Raises:
        FoldcraftError: as `of`; or the file that comes out is not what the host can read.
    """
    competition = competition.answers
    form = of(competition)
    known = np.tile(competition.target.baseline(), (len(competition.test_ids), 1))
    form.check(form.fill(competition.test_ids, known))
    return form
