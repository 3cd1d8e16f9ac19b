"""Golden requests: what is sent to a pod, and what it must answer.

A ConfigMap holds them; each key ``*.json`` is one request (``docs/guide/golden-requests.md`` has
the format). `parse` reads them and names what is wrong, `check_against_metadata` names tensors
that the model does not have, `encode` and `decode` speak the v2 inference protocol with its binary
tensor extension, and `compare` says what an answer lacks.

The tensors travel as binary, although they are written as JSON: JSON has no FP16, no BF16 and no
bytes that are not text; Triton refuses the first two there. Pure: knows no clock, does no IO.
"""

from tidegate.golden.comparing import check_against_metadata, compare
from tidegate.golden.element import DATATYPES, unpack
from tidegate.golden.parsing import parse
from tidegate.golden.request import (
    DEFAULT_TOLERANCES,
    EXACT,
    MAX_BYTES,
    MAX_ELEMENTS,
    MAX_REQUESTS,
    SUFFIX,
    Answer,
    ExpectedError,
    ExpectedOutput,
    GoldenError,
    GoldenRequest,
    Output,
    Tensor,
    Tolerance,
    Value,
)
from tidegate.golden.wire import decode, encode

__all__ = [
    "DATATYPES",
    "DEFAULT_TOLERANCES",
    "EXACT",
    "MAX_BYTES",
    "MAX_ELEMENTS",
    "MAX_REQUESTS",
    "SUFFIX",
    "Answer",
    "ExpectedError",
    "ExpectedOutput",
    "GoldenError",
    "GoldenRequest",
    "Output",
    "Tensor",
    "Tolerance",
    "Value",
    "check_against_metadata",
    "compare",
    "decode",
    "encode",
    "parse",
    "unpack",
]
