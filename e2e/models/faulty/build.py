"""Builds Triton repositories of Magika with faults: another fault is another artefact."""

import shutil
from pathlib import Path
from typing import Final

from e2e.models.faulty.fault import Fault
from e2e.models.magika import build as magika

HERE: Final = Path(__file__).parent
GENERATION: Final = "v3"
SERVED_BY: Final = "served_by"
"""Output with the name of the version that answered."""
_OUTPUT: Final = f'output {{ name: "{SERVED_BY}" data_type: TYPE_STRING dims: 1 }}\n'


def build(target: Path, fault: Fault, good: Path) -> Path:
    """Writes a repository with one model; returns its folder, which is `target`.

    Args:
        target: what is there is removed.
        fault: what is wrong with it.
        good: the repository of the good version (`e2e.models.magika.build`).
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(good, target)
    model = target / magika.MODEL
    config = (model / "config.pbtxt").read_text()
    if fault.other_input:
        config = config.replace('name: "content"', 'name: "contents"')
    (model / "config.pbtxt").write_text(config + _OUTPUT)
    version = model / "1"
    (version / "model.py").rename(version / "genuine.py")
    shutil.copyfile(HERE / "model.py", version / "model.py")
    shutil.copyfile(HERE / "fault.py", version / "fault.py")
    (version / "fault.json").write_text(fault.dump())
    return target
