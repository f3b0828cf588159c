"""The cells of a pack's `inference.ipynb`; each begins with `# %%`. Nothing of the project imports it."""

# %% [markdown]
# # Answers the test rows by a packed blend
#
# Attach the data set of the pack and the competition, turn the internet off, run all, submit `submission.csv`.

# %%
import subprocess
import sys
from pathlib import Path

INPUT = Path("/kaggle/input")
COMPETITION = "COMPETITION_HERE"  # its folder among the inputs


def folders():  # noqa: ANN201 (a notebook's cell)
    """The folders of the inputs, those further up first."""
    for depth in ("*", "*/*", "*/*/*"):
        yield from sorted(path for path in INPUT.glob(depth) if path.is_dir())


pack = next(path for path in folders() if (path / "pack.json").is_file())
data = next(path for path in folders() if path.name == COMPETITION)
print(pack, data)

# %%
# --minutes M: after so long cheaper members answer the rest
subprocess.run([sys.executable, pack / "predict.py", "--data", data, "--out", "submission.csv"], check=True)

# %%
print(*Path("submission.csv").read_text().splitlines()[:5], sep="\n")
