"""What the magika package itself says of files: the truth that the served models are held to."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.models.magika.build import Generation
from e2e.native.parts import environment

# Runs in the generation's own environment: both packages answer, with differing field names.
_SCRIPT = """
import json, pathlib, sys
from magika import Magika
magika = Magika()
answers = {}
for name in json.load(sys.stdin):
    result = magika.identify_path(pathlib.Path(name))
    if hasattr(result, "prediction"):
        answers[name] = [str(result.prediction.output.label), float(result.prediction.score)]
    else:
        answers[name] = [result.output.ct_label, float(result.output.score)]
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Truth:
    """Label and score as the package gives them."""

    label: str
    score: float


def identify(generation: Generation, files: list[Path]) -> dict[Path, Truth]:
    """The package's own answer for each file; installs it the first time (about 15 s).

    Raises:
        subprocess.CalledProcessError: the package could not be installed or failed.
    """
    version = generation.package_version
    python = environment(f"magika-{version}", f"magika=={version}")
    done = subprocess.run(
        [str(python), "-c", _SCRIPT],
        input=json.dumps([str(file) for file in files]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {Path(name): Truth(*answer) for name, answer in json.loads(done.stdout).items()}
