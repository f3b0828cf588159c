"""Answers the test rows of a competition by the blend in this folder. Nothing needs to be installed but an engine.

python predict.py --data /kaggle/input/COMPETITION --out submission.csv
"""

import sys
from pathlib import Path

from foldcraft.submission.pack import offline

if __name__ == "__main__":
    sys.exit(offline.run(Path(__file__).resolve().parent, sys.argv[1:]))
