import sys
from pathlib import Path

# The scripts of benchmarks/ import their neighbours, as they do when they are run.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
