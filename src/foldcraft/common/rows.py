"""Which row has which id."""

import numpy as np


def positions(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places (M,) of the ids `wanted` among the N different `ids`.

    Raises:
        KeyError: an id is not among them.
    """
    place = {name: row for row, name in enumerate(ids.tolist())}
    return np.array([place[name] for name in wanted.tolist()], dtype=np.int64)
