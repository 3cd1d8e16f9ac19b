"""The commands of the documentation are typed, page by page, into a shell with a real API server.

No pods run there, so a few are left out: `elsewhere` says which, and why. What a page presumes is
in `pages`. A command must end as the page lets one expect, and print what the page shows; numbers,
ages and hashes aside.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.cluster.control_plane import ControlPlane, control_plane
from e2e.cluster.kube import KubeClient
from tests.contract.documentation.elsewhere import LOGS, NOT_HERE
from tests.contract.documentation.kubelet import kubelet
from tests.contract.documentation.pages import PAGES, Page, page_of
from tests.contract.documentation.reader import ROOT, Done, Reader, operating
from tests.contract.documentation.setups import released
from tests.contract.documentation.steps import Step, filled, shape, steps
from tests.unit.architecture.test_docs import pages
from tests.unit.cli.test_logs import LINE
from tidegate.api import names

pytestmark = pytest.mark.contract

STEPS: Final = {name: list(steps(text)) for name, text in pages().items()}

LEFT_OUT: Final = "..."
"""A line of a page that stands for others."""

ALL: Final = f"/apis/{names.API_VERSION}/{names.PLURAL}"


def sought() -> list[str]:
    """What pages look for in the operator's log."""
    return [
        word
        for found in STEPS.values()
        for step in found
        if step.command.startswith(LOGS) and "grep" in step.command
        for word in step.command.rpartition("'")[0].rpartition("'")[2].split("|")
    ]


def elsewhere(command: str) -> bool:
    return any(re.match(one.command, filled(command)) for one in NOT_HERE)


TYPED: Final = {
    page: [s for s in found if not elsewhere(s.command)] for page, found in STEPS.items()
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of its own, with the chart, which changes what the whole cluster admits."""
    with control_plane() as plane:
        with plane.client() as kube:
            released(Reader(plane, kube, tmp_path_factory.mktemp("first"), set()))
        yield plane


@pytest.fixture(scope="module")
def kube(plane: ControlPlane) -> Iterator[KubeClient]:
    with plane.client() as client:
        yield client


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """The address of a server that answers as a model does, always the same."""
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["python"]},
        {"name": "score", "datatype": "FP32", "shape": [1, 1], "data": [0.99]},
    ]
    answers: dict[str, Any] = {
        "GET": {"name": "magika", "inputs": [], "outputs": outputs},
        "POST": {"model_name": "magika", "model_version": "1", "outputs": outputs},
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(answers[self.command]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def by_hand() -> set[str]:
    """ModelDeployments whose status the pages write themselves."""
    return set()


@pytest.fixture(scope="module")
def operator(kube: KubeClient, by_hand: set[str]) -> Iterator[None]:
    with operating(kube, by_hand):
        yield


@pytest.fixture(scope="module")
def node(plane: ControlPlane) -> Iterator[int]:
    """The port of a kubelet."""
    logs = {
        "operator": "\n".join(json.dumps({"event": word.strip('"')}) for word in sought()),
        "triton": "successfully loaded 'magika'",
        "envoy": json.dumps(LINE),
        "fetch": "4 files, verified",
    }
    with kubelet(plane, logs) as port:
        yield port


@pytest.fixture
def reader(
    plane: ControlPlane,
    kube: KubeClient,
    operator: None,
    node: int,
    by_hand: set[str],
    tmp_path: Path,
) -> Reader:
    """In a folder that has the repository's files, on a cluster without ModelDeployments."""
    by_hand.clear()
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = Reader(plane, kube, folder, by_hand)
    reader.kubelet = node
    for one in kube.request("GET", ALL)["items"]:
        kube.delete(
            names.API_VERSION, names.KIND, one["metadata"]["name"], one["metadata"]["namespace"]
        )
    return reader


def beginning(found: dict[str, Any], command: str) -> Any:
    """The value of the key with which a command begins; None where there is no such key."""
    return next((value for key, value in found.items() if command.startswith(key)), None)


def typed(reader: Reader, page: Page, step: Step, model: str) -> str:
    """Type one command; '' or what is wrong with it."""
    if setup := beginning(dict(page.before), step.command):
        setup(reader)
    command = filled(step.command)
    for words, others in page.instead.items():
        command = command.replace(words, others.replace("MODEL", model))
    user = beginning(dict(page.users), step.command) or ""
    done = reader.type(command, user=user, follows=step.follows)
    said = done.out + done.err
    if done.code != (beginning(dict(page.ends), step.command) or 0):
        return f"{step.command}\nended with {done.code}:\n{said}"
    shown, printed = ([shape(line) for line in lines] for lines in (step.shown, lines_of(done)))
    if shown and beginning(dict(page.differs), step.command):
        if shown[0] == LEFT_OUT:
            shown = shown[:2]
        else:
            shown, printed = shown[:1], printed[:1]
    if shown and not agree(shown, printed):
        return "\n".join([step.command, "shown:", *shown, "printed:", *printed, "in full:", said])
    return ""


def agree(shown: list[str], printed: list[str]) -> bool:
    """Whether a page shows what was printed; it may break a long line, or leave lines out."""
    if LEFT_OUT not in shown:
        return " ".join(shown) == " ".join(printed)
    rest = iter(printed)
    return all(line in rest for line in shown if line != LEFT_OUT)


def lines_of(done: Done) -> list[str]:
    return [line for line in (done.out + done.err).splitlines() if line.strip()]


@pytest.mark.parametrize("name", [page for page, found in TYPED.items() if found])
def test_page(name: str, reader: Reader, model: str) -> None:
    page = page_of(name)
    page.setup(reader)
    wrong = [said for step in TYPED[name] if (said := typed(reader, page, step, model))]
    assert wrong == [], "\n\n".join(wrong)


def test_what_is_not_run_here_is_there_and_run_where_it_says() -> None:
    commands = [filled(s.command) for found in STEPS.values() for s in found]
    for one in NOT_HERE:
        assert any(re.match(one.command, c) for c in commands), f"nothing begins as {one.command}"
        assert not one.by or (ROOT / one.by).exists(), one.by


def test_most_are_run() -> None:
    run = Counter(page for page, found in TYPED.items() for _ in found)
    assert sum(run.values()) > 100
    assert sum(run.values()) > 0.6 * sum(len(found) for found in STEPS.values())


def test_every_setup_is_of_a_page_that_has_commands() -> None:
    assert {name for name in PAGES if not TYPED.get(name)} == set()
    for name, page in PAGES.items():
        commands = [s.command for s in TYPED[name]]
        for key in (*page.before, *page.ends, *page.users, *page.differs):
            assert any(c.startswith(key) for c in commands), (name, key)
        for words in page.instead:
            assert any(words in c for c in commands), (name, words)


def test_what_is_looked_for_in_the_operators_log_is_written_there() -> None:
    text = "".join(
        p.read_text(encoding="utf-8") for p in (ROOT / "operator/tidegate/runtime").rglob("*.py")
    )
    assert len(sought()) >= 4
    assert [word for word in sought() if word not in text] == []


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("kubectl get mdep nothing", ()),
        ("kubectl tidegate list --wach", ()),
        ("echo 12 pods in 5m", ("12 nodes in 5m",)),
        ("echo one; echo two", ("one",)),
        ("echo one; echo two", ("...", "three")),
        ("echo one; echo two", ("two", "...", "one")),
    ],
)
def test_a_wrong_one_is_found(command: str, shown: tuple[str, ...], reader: Reader) -> None:
    assert typed(reader, Page(), Step(command, shown), "")


def test_numbers_ages_and_hashes_may_differ(reader: Reader) -> None:
    step = Step("echo 9ab14c2d3e  for 3m12s, 0.48% of 1,900", ("7f3c1a2b9d for 2h, 1% of 20",))
    assert typed(reader, Page(), step, "") == ""


def test_lines_may_be_left_out(reader: Reader) -> None:
    step = Step("echo one; echo two; echo three; echo four", ("...", "two", "...", "four"))
    assert typed(reader, Page(), step, "") == ""
