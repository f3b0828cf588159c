"""Runs commands of src/, each in a fork of its own, and tells which libraries were imported at its end.

Not a test: test_startup.py starts it. Stages come in as JSON, each with a module to start from and its cases: folder,
command, words. A list of what became of each case goes out. Modules that a fork starts with count as the command's own.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

SRC = Path(__file__).parents[1] / "src"
sys.path.insert(0, str(SRC))


def outcome(folder: str, command: str, words: list[str]) -> dict[str, Any]:
    """Exit code, stderr and all imported modules of a command."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as result:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = carry_out(folder, command, words)
            result.write(json.dumps({"code": code, "modules": list(sys.modules)}).encode())
            result.flush()
            os._exit(0)
        os.waitpid(child, 0)
        for stream in (said, result):
            stream.seek(0)
        return {**json.loads(result.read()), "err": said.read().decode()}


def carry_out(folder: str, command: str, words: list[str]) -> int | None:
    os.chdir(folder)
    sys.argv = [f"src/{command}.py", *words]
    try:
        runpy.run_path(str(SRC / f"{command}.py"), run_name="__main__")
    except SystemExit as end:
        return end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
    return 1


if __name__ == "__main__":
    found = []
    for stage in json.load(sys.stdin):
        importlib.import_module(stage["start"])
        found += [outcome(*case) for case in stage["cases"]]
    json.dump(found, sys.stdout)
