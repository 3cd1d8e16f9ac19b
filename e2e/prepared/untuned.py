"""A model as it is served by who prepares nothing: converted, one instance, no batches.

``python -m e2e.prepared.untuned --model FILE --data FILE --name NAME --out FOLDER --triton FILE``,
by an interpreter of `e2e.preparation_venv`, writes a Triton repository to ``FOLDER/model``, and
golden requests with what it answers, as a ConfigMap, to ``FOLDER/known.yaml``.
"""

import argparse
import shutil
from pathlib import Path
from typing import Final

from tidegate.cli.common import yaml_text
from tidegate.preparation import samples, session
from tidegate.preparation.convert import convert
from tidegate.preparation.publish import golden
from tidegate.preparation.tuning.grid import Setting
from tidegate.preparation.tuning.repository import write
from tidegate.preparation.tuning.serving import backend_of, serve

UNTUNED: Final = Setting(batch=1, instances=1, delay_ms=0.0, threads=1)


def make(model: Path, data: Path, name: str, out: Path, triton: str) -> None:
    """Write repository and golden requests.

    Args:
        model: the framework's file.
        data: samples; the requests are the ones that `tidegate prepare` takes of them.
        name: of the model.
        out: folder; what an earlier run wrote there is replaced.
        triton: what starts Triton.

    Raises:
        tidegate.preparation.errors.PreparationError: it cannot be converted, or is not served.
    """
    given = samples.read(data)
    candidate = convert(model, given, out / "converted" / "model.onnx")
    backend = backend_of(candidate, name, triton)
    columns = session.fitted(candidate.inputs, given)
    with serve(candidate, name, UNTUNED, backend, triton) as server:
        known = golden.record(server.address, name, candidate, columns)
    shutil.rmtree(out / "model", ignore_errors=True)
    write(out / "model", candidate, name, UNTUNED, backend)
    (out / "known.yaml").write_text(yaml_text([known]), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.prepared.untuned", description=__doc__)
    for option in ("--model", "--data", "--out"):
        parser.add_argument(option, type=Path, required=True)
    for option in ("--name", "--triton"):
        parser.add_argument(option, required=True)
    said = parser.parse_args()
    make(said.model, said.data, said.name, said.out, said.triton)


if __name__ == "__main__":
    main()
