"""What keeps thousands of tests quick that are not about it."""

import gc
from collections.abc import Iterator

import pytest
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

# By default structlog has rich draw each frame with all that is in it: a second a defect.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        ConsoleRenderer(exception_formatter=plain_traceback),
    ]
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays to the end: the garbage collector need not look at it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
