import io

import pytest

from e2e.cluster.progress import Progress


def test_a_step_tells_what_and_how_long() -> None:
    times = iter([0.0, 1.0, 4.5, 4.5, 4.5])
    stream = io.StringIO()
    progress = Progress(stream=stream, clock=lambda: next(times))
    with progress.step("go build x"):
        pass
    assert stream.getvalue() == "[   4.5s] go build x (3.5 s)\n"
    assert progress.durations == {"go build x": 3.5}


def test_a_failed_step_says_so_and_counts_for_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, clock=lambda: 0.0)
    with pytest.raises(ValueError, match="no"), progress.step("x"):
        raise ValueError("no")
    assert stream.getvalue().endswith("FAILED x after 0.0 s\n")
    assert progress.durations == {}


def test_a_long_step_is_heard_from() -> None:
    heard = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            heard.append(text)
            return len(text)

    progress = Progress(stream=Stream(), heartbeat_seconds=0.01)
    with progress.step("x"):
        while not any("... x" in text for text in heard):
            continue
    assert heard[-2].split("] ")[1].startswith("x (")
