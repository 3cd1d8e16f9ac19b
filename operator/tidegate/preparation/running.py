"""A candidate's answers, whatever runs it."""

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import Arrays


def answers(candidate: Candidate, samples: Samples, *, threads: int = 1) -> Arrays:
    """Outputs for all samples by name; the first axis is samples.

    Raises:
        PreparationError: it does not load, or the samples do not fit.
    """
    if candidate.platform == "onnxruntime":
        return session.run(candidate.path, samples, threads=threads)
    if candidate.platform == "openvino":
        from tidegate.preparation.optimise import openvino

        return openvino.run(candidate.path, samples, threads=threads)
    raise PreparationError(f"{candidate.name}: nothing here runs {candidate.platform}")
