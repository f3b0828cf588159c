"""May the host's own code be run? Only where the command line says so, and in the processes that it starts."""

import os

from foldcraft.common.executor import IS_TASK

MARK = "FOLDCRAFT_CODE_ALLOWED"  # in the environment, so that tasks and W&B's process have it too


def settle(asked: bool) -> None:
    """Take what the command line says; a task has it from the command that started it."""
    if asked:
        os.environ[MARK] = "1"
    elif IS_TASK not in os.environ:
        os.environ.pop(MARK, None)


def is_allowed() -> bool:
    """Was it said?"""
    return MARK in os.environ
