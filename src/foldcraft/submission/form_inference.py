"""The form of a competition's submission, and whether its sample can be filled."""

import numpy as np

from foldcraft.data.competition import Competition
from foldcraft.data.submission_forms import several
from foldcraft.data.submission_forms.several import SubmissionFiles


def files(competition: Competition) -> SubmissionFiles:
    """The form of each file that the host wants.

    Raises:
        FoldcraftError: as `several.of`.
    """
    return several.of(competition.answers.file_requests)


def tried(competition: Competition) -> SubmissionFiles:
    """The forms, once the samples have been filled by them with what is known of a row without its image.

    Raises:
        FoldcraftError: as `files`; or a file that comes out is not what the host can read.
    """
    found = files(competition)
    found.filled(*without_images(competition))
    return found


def without_images(competition: Competition) -> tuple[np.ndarray, np.ndarray]:
    """The test ids, and what is known of each row without its image (M, W)."""
    competition = competition.answers
    return competition.test_ids, np.tile(competition.target.baseline(), (len(competition.test_ids), 1))
