"""A model of `e2e.bench.trained` as the files that `tidegate prepare` is given.

``python -m e2e.prepared.given MODEL FOLDER``, by the interpreter with the large frameworks, writes
``held-out.npz``, ``seen.npz`` (to calibrate on), and ``given.json``: where the trained model lies,
and how much worse it may become.
"""

import argparse
import json
from pathlib import Path

from e2e.bench.trained import MODELS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.prepared.given", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=Path)
    said = parser.parse_args()
    folder: Path = said.folder
    folder.mkdir(parents=True, exist_ok=True)
    trained = MODELS[said.model](folder)
    trained.held_out.write(folder / "held-out.npz")
    trained.seen.write(folder / "seen.npz")
    told = {"model": str(trained.path), "max_drop": trained.max_drop}
    (folder / "given.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
