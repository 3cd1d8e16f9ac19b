"""The counters of a pod's sidecar, as its page tells them.

A reading is what one page of counters says, from the pod itself or from Prometheus: cumulative
since Envoy started. Pages are read four times a second and from a thousand pods, so what a page's
texts mean, and where which counter stands, is remembered. Pure.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add, itemgetter
from typing import Final

from tidegate.resources.sidecar import Protocol, TrafficClass, edge_ms

CLOCK_SLACK_S: Final = 5.0
"""By which two clocks, and Envoy's age in whole seconds, may disagree."""


@dataclass(frozen=True)
class Counts:
    """Cumulative counters of one class of traffic in one pod, HTTP and gRPC together.

    Attributes:
        started: arrived, refused ones included.
        succeeded: answered well.
        client_errors: answered with a status that blames the request (4xx, INVALID_ARGUMENT ...).
        failed: answered with a status that blames the server; `shed` included.
        shed: of those, refused by the sidecar for overload.
        in_flight: not answered yet (a gauge).
        timed: answered with a known latency; a flush of Envoy's behind the statuses.
        faster: of `timed`, in less than each of the reading's edges, ascending with them.
    """

    started: int = 0
    succeeded: int = 0
    client_errors: int = 0
    failed: int = 0
    in_flight: int = 0
    timed: int = 0
    faster: tuple[int, ...] = ()
    shed: int = 0

    @property
    def answered(self) -> int:
        """Requests that got a status which says whose fault it was, if anybody's."""
        return self.succeeded + self.client_errors + self.failed


NO_COUNTS: Final = Counts()


@dataclass(frozen=True)
class Reading:
    """One look at one pod's counters.

    Attributes:
        pod: its UID.
        revision: hash of its revision.
        at_s: when, seconds since the epoch.
        edges_ms: the latency bounds that are counted, ascending.
        classes: the counters of each class of traffic; one without requests may be missing.
        uptime_s: Envoy's own age, by which a restart shows; None: unknown.
        name: the pod's name, for people; empty: its UID serves.
    """

    pod: str
    revision: str
    at_s: float
    edges_ms: tuple[int, ...]
    classes: Mapping[TrafficClass, Counts]
    uptime_s: float | None = None
    name: str = ""

    @property
    def label(self) -> str:
        """What people call the pod."""
        return self.name or self.pod

    def is_of_another_envoy(self, uptime_s: float | None) -> bool:
        """Whether Envoy was started anew since it had that age, as far as both are known."""
        return self.uptime_s is not None and uptime_s is not None and self.uptime_s < uptime_s

    def is_older_than(self, at_s: float) -> bool:
        """Whether counters that fell since that look are an older page's, and not a new Envoy's.

        Prometheus' clock is not ours, so its page can be older than its time says.
        """
        return self.uptime_s is not None and self.uptime_s > self.at_s - at_s + CLOCK_SLACK_S


_CLASSES: Final = tuple(TrafficClass)
_STARTED, _SUCCEEDED, _CLIENT_ERRORS, _FAILED, _IN_FLIGHT, _TIMED, _SHED = range(7)
_FIELDS: Final = 7
_UPTIME: Final = -1
_PLAIN: Final[Mapping[str, tuple[int, ...]]] = {
    "upstream_rq_total": (_STARTED,),
    "upstream_rq_active_overflow": (_STARTED, _SHED),
    "upstream_rq_pending_failure_eject": (_STARTED,),
    "upstream_rq_pending_active": (_STARTED, _IN_FLIGHT),
    "upstream_rq_active": (_IN_FLIGHT,),
    "upstream_rq_time_count": (_TIMED,),
}
_CLUSTERS: Final = {
    f"{traffic}_{protocol}": (number, protocol)
    for number, traffic in enumerate(_CLASSES)
    for protocol in Protocol
}
_GRPC_OK: Final = 0
_GRPC_CANCELLED: Final = 1
_GRPC_CLIENT_ERRORS: Final = frozenset({3, 5, 6, 7, 9, 11, 16})
"""INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION,
OUT_OF_RANGE, UNAUTHENTICATED."""
_HTTP_CLIENT_GONE: Final = 499

_Meaning = tuple[tuple[int, ...], tuple[int, int] | None]
"""Places in the flat list of counters; or, for a bucket, its class and latency bound in ms."""
# What a sample's name and labels mean: the same few hundred texts on every page of every pod.
_meanings: dict[str, _Meaning | None] = {}
_MEANINGS_KEPT: Final = 20_000
_layouts: "dict[tuple[str, ...], _Layout]" = {}
_LAYOUTS_KEPT: Final = 500
"""Some 10 KB each. A layout is shared by all pods that have used the same counters."""
_COMMENTS: Final = re.compile("^#.*$", re.MULTILINE)


def read_page(text: str, *, pod: str, revision: str, at_s: float, name: str = "") -> Reading:
    """What Envoy's page ``/stats/prometheus`` says.

    Args:
        text: the page, as a whole or filtered (without requests it may hold the uptime only).
        pod: the pod's UID.
        revision: hash of its revision.
        at_s: when it was read, seconds since the epoch.
        name: the pod's name.

    Raises:
        ValueError: this is no such page.
    """
    if "#" in text:
        text = _COMMENTS.sub("", text)
    tokens = text.split()
    keys = tuple(tokens[::2])
    layout = _layouts.get(keys)
    if layout is not None:
        try:
            return layout.reading(tokens, pod, revision, at_s, name)
        except ValueError:
            pass  # said below, by name
    reading = read_samples(
        (line.rpartition(" ") for line in text.split("\n")),
        pod=pod,
        revision=revision,
        at_s=at_s,
        name=name,
    )
    if layout is None and len(keys) == sum(len(line.split()) == 2 for line in text.split("\n")):
        if len(_layouts) >= _LAYOUTS_KEPT:
            _layouts.clear()
        _layouts[keys] = _Layout(keys)
    return reading


def read_samples(
    samples: Iterable[tuple[str, str, str]],
    *,
    pod: str,
    revision: str,
    at_s: float,
    name: str = "",
) -> Reading:
    """The same from single samples: name with labels as on the page, anything, value.

    Raises:
        ValueError: the samples are not those of one sidecar.
    """
    totals = [0] * (_FIELDS * len(_CLASSES))
    faster: dict[tuple[int, int], int] = {}
    uptime_s: float | None = None
    meanings = _meanings
    for key, _, value in samples:
        try:
            meaning = meanings[key]
        except KeyError:
            meaning = _remember(key)
        if meaning is None:
            continue
        places, bucket = meaning
        try:
            number = int(value)
        except ValueError:
            number = _whole(key, value)
        if number < 0:
            raise ValueError(f"{key} is {value}: a counter is never negative")
        if bucket is not None:
            faster[bucket] = faster.get(bucket, 0) + number
        elif places[0] == _UPTIME:
            uptime_s = float(number)
        else:
            for place in places:
                totals[place] += number
    if uptime_s is None:
        raise ValueError(
            "no envoy_server_uptime: this is not the statistics page of a sidecar's Envoy"
        )
    edges = tuple(sorted({edge for _, edge in faster}))
    below = {
        number: tuple([faster.get((number, edge), 0) for edge in edges])
        for number in range(len(_CLASSES))
    }
    return Reading(pod, revision, at_s, edges, _classes(totals, below), uptime_s, name)


def _classes(
    totals: Sequence[int], below: Mapping[int, tuple[int, ...]]
) -> dict[TrafficClass, Counts]:
    """Counters of each class that has any.

    Args:
        totals: of each class one after the other.
        below: by number of the class.
    """
    classes: dict[TrafficClass, Counts] = {}
    for number, traffic in enumerate(_CLASSES):
        first = number * _FIELDS
        started, succeeded, client_errors, failed, in_flight, timed, shed = totals[
            first : first + _FIELDS
        ]
        if started or succeeded or client_errors or failed or in_flight or timed:
            classes[traffic] = Counts(
                started,
                succeeded,
                client_errors,
                failed,
                in_flight,
                timed,
                below[number],
                shed,
            )
    return classes


class _Layout:
    """Where on a page which counter stands: the same at each look, until a new counter is used.

    Args:
        keys: names and labels of all samples, in their order.

    Raises:
        ValueError: there is no uptime among them.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        plain: list[tuple[int, int]] = []
        buckets: dict[tuple[int, int], list[int]] = {}
        uptime: int | None = None
        wanted: list[int] = []
        for position, key in enumerate(keys):
            meaning = _meanings[key] if key in _meanings else _remember(key)
            if meaning is None:
                continue
            places, bucket = meaning
            index = len(wanted)
            wanted.append(2 * position + 1)
            if bucket is not None:
                buckets.setdefault(bucket, []).append(index)
            elif places[0] == _UPTIME:
                uptime = index
            else:
                plain += [(place, index) for place in places]
        if uptime is None:
            raise ValueError("no uptime")
        self._values = itemgetter(*wanted, wanted[uptime])  # two at least: a tuple
        self._uptime = uptime
        self._plain = plain
        self._edges = tuple(sorted({edge for _, edge in buckets}))
        # For each edge one index by protocol that has it.
        self._below = {
            number: _adder([tuple(buckets.get((number, edge), ())) for edge in self._edges])
            for number in range(len(_CLASSES))
        }

    def reading(
        self, tokens: Sequence[str], pod: str, revision: str, at_s: float, name: str
    ) -> Reading:
        """What a page says that is laid out like this.

        Raises:
            ValueError: a value is no number of requests, or not a whole one.
        """
        values = [*map(int, self._values(tokens))]
        if min(values) < 0:
            raise ValueError("a counter is never negative")
        totals = [0] * (_FIELDS * len(_CLASSES))
        for place, index in self._plain:
            totals[place] += values[index]
        below = {number: summed(values) for number, summed in self._below.items()}
        uptime_s = float(values[self._uptime])
        return Reading(pod, revision, at_s, self._edges, _classes(totals, below), uptime_s, name)


def _adder(indexes: Sequence[tuple[int, ...]]) -> "Callable[[Sequence[int]], tuple[int, ...]]":
    """Adds up values: for each group of indexes one sum."""
    width = len(indexes)
    groups = [[group[row] for group in indexes] for row in range(min(map(len, indexes), default=0))]
    if groups and width > 1 and all(len(group) == len(groups) for group in indexes):
        first, *others = [itemgetter(*group) for group in groups]
        if not others:
            return first
        if len(others) == 1:
            return lambda values: tuple(map(add, first(values), others[0](values)))
    if not any(indexes):
        return lambda _: (0,) * width
    return lambda values: tuple([sum([values[i] for i in group]) for group in indexes])


def sample_key(name: str, labels: Mapping[str, str]) -> str:
    """A sample's name and labels in the form in which the page has them.

    Labels that Prometheus adds to the page's own (``pod``, ``namespace`` ...) are left out.
    """
    inner = ",".join(
        f'{label}="{labels[label]}"'
        for label in ("envoy_response_code", "envoy_cluster_name", "le")
        if label in labels
    )
    return f"{name}{{{inner}}}"


def _whole(key: str, value: str) -> int:
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        raise ValueError(f"{key[:200]}: {value[:40]!r} is no number of requests") from None


def _remember(key: str) -> _Meaning | None:
    if len(_meanings) >= _MEANINGS_KEPT:  # somebody's page is strange; start over
        _meanings.clear()
    meaning = _meanings[key] = _meaning(key)
    return meaning


def _meaning(key: str) -> _Meaning | None:
    name, _, rest = key.partition("{")
    if name == "envoy_server_uptime":
        return (_UPTIME,), None
    if not name.startswith("envoy_cluster_"):
        return None
    pairs = (pair.partition("=") for pair in rest.rstrip("}").split(","))
    labels = {label: quoted.strip('"') for label, _, quoted in pairs}
    cluster = _CLUSTERS.get(labels.get("envoy_cluster_name", ""))
    if cluster is None:
        return None
    number, protocol = cluster
    name, first = name.removeprefix("envoy_cluster_"), number * _FIELDS
    if name in _PLAIN:
        return tuple(first + place for place in _PLAIN[name]), None
    if name == "upstream_rq_time_bucket":
        try:
            edge = edge_ms(float(labels["le"]))
        except (KeyError, ValueError):
            return None
        return None if edge is None else ((), (number, edge))
    outcome = None
    if protocol is Protocol.HTTP and name == "upstream_rq":
        outcome = _http_outcome(labels.get("envoy_response_code", ""))
    elif protocol is Protocol.GRPC and name.startswith("grpc_"):
        # HTTP says 200 whatever happened; the status of gRPC is the answer.
        outcome = _grpc_outcome(name.rpartition("_")[2])
    return None if outcome is None else ((first + outcome,), None)


def _http_outcome(code: str) -> int | None:
    if not code.isdecimal() or int(code) < 200 or int(code) == _HTTP_CLIENT_GONE:
        return None
    return _SUCCEEDED if int(code) < 400 else _CLIENT_ERRORS if int(code) < 500 else _FAILED


def _grpc_outcome(code: str) -> int | None:
    if not code.isdecimal() or int(code) == _GRPC_CANCELLED:
        return None
    if int(code) == _GRPC_OK:
        return _SUCCEEDED
    return _CLIENT_ERRORS if int(code) in _GRPC_CLIENT_ERRORS else _FAILED
