"""What a revision's pods logged: the model server's own words, or the requests that failed."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

from tidegate.api import names
from tidegate.cli.client import ApiError, Client, pods_path, retry_in_s
from tidegate.cli.trouble import Exit, Trouble

SIDECAR: Final = "envoy"
SERVER: Final = "triton"
POLL_S: Final = 1.0


@dataclass(frozen=True)
class Failure:
    """A request that failed, as the sidecar logged it.

    Attributes:
        time: RFC 3339.
        id: the request's ``x-request-id``; '' where the client sent none.
        code: HTTP status, or ``grpc`` and its status; 0: the client left before an answer.
        path: what was asked for.
        message: why: the server's words where they are logged, else Envoy's.
        duration: such as ``12ms``.
        kind: client, pinned, mirrored, streaming or golden.
    """

    time: str
    id: str
    code: str
    path: str
    message: str
    duration: str
    kind: str


def failure(line: str) -> Failure | None:
    """A line of the sidecar's log; None where it is no request."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or "code" not in said or "time" not in said:
        return None
    grpc = said.get("grpc")
    reasons = [said.get("message"), said.get("detail"), said.get("flags")]
    usual = ("via_upstream", "-")
    words = [str(r) for r in reasons if r and r not in usual]
    took = said.get("duration_ms")
    return Failure(
        time=str(said["time"]),
        id=str(said.get("id") or ""),
        code=f"grpc {grpc}" if grpc not in (None, "", "-", "OK") else str(said["code"]),
        path=str(said.get("path") or ""),
        message=words[0] if words else "answered so by the model server",
        duration="" if took is None else f"{took}ms",
        kind=str(said.get("class") or "").partition("_")[0],
    )


def told(found: Failure) -> str:
    """A failed request in a line; tabs between, so that `cut` and `awk` split it."""
    return "\t".join(
        (
            found.time,
            found.id or "-",
            found.code,
            found.duration or "-",
            found.kind or "-",
            found.path or "-",
            " ".join(found.message.split()),
        )
    )


def split_stamp(line: str) -> tuple[str, str]:
    """A line of ``timestamps=true``: its time in UTC, so written that texts compare; its text.

    Container runtimes write local time, and leave out zeros at the end.
    """
    stamp, _, text = line.partition(" ")
    whole, _, rest = stamp.partition(".")
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0]
    try:
        zone = rest[len(digits) :] if rest else ""
        at = datetime.fromisoformat(whole + zone).astimezone(UTC)
    except ValueError:
        return "", line
    return f"{at:%Y-%m-%dT%H:%M:%S}.{digits:0<9}Z", text


@dataclass
class Tail:
    """The pods of a revision, and how far each one's log was read.

    Attributes:
        client: reads them.
        namespace: theirs.
        labels: select them.
        container: whose log.
        lines: at most so many of each pod's past, None: all.
    """

    client: Client
    namespace: str
    labels: Mapping[str, str]
    container: str
    lines: int | None = None

    def __post_init__(self) -> None:
        self._read: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        """Pods whose log could not be read at the last look, and why."""

    def pods(self) -> list[str]:
        """Names of the pods, by name.

        Raises:
            Trouble: they may not be read.
        """
        found = self.client.list(pods_path(self.namespace), labels=self.labels)
        return sorted(p["metadata"]["name"] for p in found)

    def news(self) -> Iterator[tuple[str, str]]:
        """Pod and line, for each line that is new; in the order of time for all pods together.

        Raises:
            Trouble: the logs may not be read.
        """
        found: list[tuple[str, str, str]] = []
        for pod in self.pods():
            found += [(stamp, pod, text) for stamp, text in self._of(pod)]
        for _, pod, text in sorted(found, key=lambda line: line[0]):
            yield pod, text

    def _of(self, pod: str) -> Iterator[tuple[str, str]]:
        last = self._read.get(pod, "")
        params: dict[str, str] = {"container": self.container, "timestamps": "true"}
        if last:
            params["sinceTime"] = f"{last.partition('.')[0]}Z"
        elif self.lines is not None:
            params["tailLines"] = str(self.lines)
        try:
            text = self.client.text("GET", pods_path(self.namespace, pod, "log"), params=params)
        except ApiError as error:
            if error.status == 403:
                raise Trouble(
                    error.message, "ask for the role view there (get on pods/log)"
                ) from None
            if error.status in (400, 404, 500):  # not started yet, gone, or its node is away
                self.unread[pod] = error.message
                return
            raise
        self.unread.pop(pod, None)
        for line in text.splitlines():
            stamp, words = split_stamp(line)
            if stamp > last or not stamp:
                self._read[pod] = stamp or self._read.get(pod, "")
                yield stamp, words


def labels(name: str, hash_: str) -> dict[str, str]:
    """Select the pods of a revision; '' means of all."""
    found = {names.DEPLOYMENT_LABEL: name}
    return found | ({names.REVISION_LABEL: hash_} if hash_ else {})


def nothing_left(name: str, hash_: str) -> Trouble:
    """There are no pods to read logs of."""
    which = f"revision {hash_} of {name}" if hash_ else name
    return Trouble(
        f"no pods of {which} are left",
        "rollout.keepFailed keeps a failed revision's pods for a while",
        code=Exit.NOT_FOUND,
    )


def unreadable(name: str, unread: Mapping[str, str]) -> Trouble:
    """No pod's log could be read, though there are pods."""
    pod, why = next(iter(unread.items()))
    more = f", and {len(unread) - 1} more pods" if len(unread) > 1 else ""
    return Trouble(f"no log to read of {pod}{more}: {why}", f"see tidegate get {name}")


def follow(
    tail: Tail, show: Callable[[str, str], None], sleep: Callable[[float], None] = time.sleep
) -> NoReturn:
    """Show new lines for ever.

    Raises:
        Trouble: the logs may not be read.
    """
    while True:
        pause_s = POLL_S
        try:
            for pod, line in tail.news():
                show(pod, line)
        except Trouble as error:
            again_s = retry_in_s(error)
            if again_s is None:
                raise
            pause_s = again_s
        sleep(pause_s)
