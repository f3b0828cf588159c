"""What is told once a command, whoever finds it and however often."""

import logging
import os
from functools import cache

from foldcraft.common import executor


@cache
def tell_once(text: str) -> None:
    """Tell it on stderr: on one process of those that torchrun starts, and before tasks start, not in each."""
    if os.environ.get("RANK", "0") == "0" and executor.IS_TASK not in os.environ:
        logging.getLogger(__name__).warning(text)
