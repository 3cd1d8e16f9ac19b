"""Plays the acts on a real cluster, with a client that keeps every answer."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.text import Text

from e2e.cluster import paths
from e2e.cluster.kube import KubeError, Object, wait_for
from e2e.demo import client as clients
from e2e.demo.place import (
    NAME,
    PATIENCE_S,
    SLEEPER,
    TARGET_MS,
    DemoFailed,
    Place,
    await_ready,
    host,
    uri,
)
from e2e.demo.screen import Screen, client_line, tree
from e2e.demo.story import (
    ACTS,
    DISAGREE,
    FAILED,
    JUDGED,
    LATE,
    MORE_PODS,
    SCALING,
    VERSIONS,
    Act,
    Tally,
    answered_by,
    differences,
    judged_by,
    late_percent,
    outcome,
    revision_of,
    since,
    stage,
)
from e2e.load import Load, Orders, Request
from tidegate.view import facts

FILES: Final = (
    *("README.md", "Makefile", "pyproject.toml", "LICENSE", "operator/Dockerfile"),
    *("operator/tidegate/plan.py", "crds/modeldeployments.yaml"),
    *("helm/tidegate/values.schema.json", "e2e/cluster/go/deviceplugin/main.go"),
    *("e2e/cluster/go/kubernetes/go.sum", "docs/images/data-path.svg"),
)
"""Files of this repository, of many types."""
PICTURED: Final = 6
"""Of the files, in a picture of the story."""
TEXT: Final = (
    "import os\nimport sys\n\n\ndef main() -> None:\n    print(os.getcwd(), sys.argv)\n" * 4
)
LABEL: Final = "python"
"""What both generations say of it; anything else counts as a failed response."""
RATE_HZ: Final = 50.0
CALM_HZ: Final = 25.0
MORE_HZ: Final = 40.0
"""With `CALM_HZ` a quarter more than one pod of the second model holds within its objective, and
about what it can answer at all: on a slow machine, too, what waits is late, not lost."""
LOOK_S: Final = 0.25
LATELY_S: Final = 3.0
AFTER_S: Final = 1.0
"""The client goes on for so long after an outcome: were the last failures really the last?"""
LONGEST_S: Final = 900.0
MET: Final = 10
"""Answers of a new version that the client has when a moment of its rollout is kept."""
ANSWER_SECONDS: Final = 60.0
MEASURED_S: Final = 150.0
CLIENTS: Final = 2
"""One over HTTP, one over gRPC."""


@dataclass
class Played:
    """What an act came to.

    Attributes:
        act: which.
        seconds: how long it took.
        figures: what was counted.
        wrong: what was not as told.
    """

    act: Act
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Player:
    """Plays acts one after the other.

    Args:
        place: where; it is prepared.
        screen: on which.
        gpus: of each pod of Magika.
    """

    def __init__(self, place: Place, screen: Screen, *, gpus: int) -> None:
        self.place = place
        self.screen = screen
        self.gpus = gpus
        self.answers: dict[str, list[clients.Answer]] = {}
        self._loads = ExitStack()
        self._load: Load | None = None
        self._counted = 0
        self._calm: Load | None = None

    # The two models.

    def spec(self, version: str, *, mirror: bool) -> Object:
        """Of Magika."""
        mode = {"mode": "Required", "percent": "100%", "minRequests": 200}
        return {
            "model": {"name": NAME, "source": self.place.source(version)},
            "runtime": {
                "gpu": {"count": self.gpus},
                "resources": {"cpu": "200m", "memory": "1Gi"},
            },
            "replicas": 1,
            "slo": {"maxErrorRate": "1%"},
            "rollout": {
                "steps": [{"weight": w, "hold": "1s"} for w in ("5%", "25%", "50%")],
                "mirror": mode if mirror else {"mode": "Off"},
                "bake": "3s",
            },
            **self.place.traffic(NAME),
        }

    def sleeper(self) -> Object:
        """Of the model whose replicas follow the load."""
        return {
            "model": {"source": self.place.source(SLEEPER)},
            "runtime": {"gpu": {"count": 0}, "resources": {"cpu": "50m", "memory": "1Gi"}},
            "slo": {"latency": {"quantile": "0.99", "target": f"{TARGET_MS}ms"}},
            # No spare pod: what the load alone needs.
            "scaling": {"minReplicas": 1, "maxReplicas": 4, "headroom": "0"},
            **self.place.traffic(SLEEPER),
        }

    # The play.

    def play(self, acts: Sequence[Act]) -> list[Played]:
        """Play these; v1 serves before the first of them, with or without its act.

        Ends after the first act that did not go as told.

        Raises:
            NotReached, DemoFailed, KubeError: it cannot go on.
        """
        found = []
        with self._loads:
            numbers = [act.number for act in acts]
            if SCALING in numbers:
                self.place.apply(SLEEPER, self.sleeper())
            if 1 not in numbers:
                self.place.apply(NAME, self.spec("v1", mirror=True))
                self._await_ready(NAME)
                self._begin_load()
            for act in acts:
                if act.number != 1 and SCALING in numbers:
                    self._begin_calm()
                played = self._act(act)
                found.append(played)
                if played.wrong:
                    break
        return found

    def _act(self, act: Act) -> Played:
        played = Played(act)
        began = time.monotonic()
        with self.screen.act(act, len(ACTS)):
            if act.number == SCALING:
                lines, became = self._scaling(played, began), ""
            elif act.outcome:
                lines, became = self._rollout(played, began)
            else:
                lines, became = self._first(played, began), ""
        played.seconds = time.monotonic() - began
        played.wrong = differences(act, became, played.figures)
        self.screen.results(lines, played.wrong)
        return played

    # Act 1.

    def _first(self, played: Played, began: float) -> list[str]:
        place, screen = self.place, self.screen
        place.apply(NAME, self.spec("v1", mirror=True))

        def say(text: str) -> None:
            screen.beat(time.monotonic() - began, text)

        say(f"applied ModelDeployment {NAME}, {uri('v1')}")
        await_ready(place, NAME, say)
        ready_s = time.monotonic() - began
        say("Ready")
        answers = self._ask()
        self.answers = answers
        table = clients.table(answers)
        screen.say(Text(""), Text(table), Text(""), pictured=False)
        shown = table.splitlines()[: 2 + PICTURED]
        screen.told += [Text(""), Text("\n".join(shown)), Text(f"and {len(FILES) - PICTURED} more")]
        played.figures[DISAGREE] = sum(
            len({answer.label for answer in same}) > 1
            for same in zip(*answers.values(), strict=True)
        )
        asked = sum(map(len, answers.values()))
        lines = [f"Ready {ready_s:.1f} s after apply; {asked} answers about {len(FILES)} files"]
        if not place.gateway:
            played.figures |= {FAILED: 0, answered_by("v1"): asked}
            return lines
        self._begin_load()
        load = self._running()
        while len(load.requests) < RATE_HZ:
            time.sleep(LOOK_S)
            self._frame(self._uncounted())
        tally = self._count()
        played.figures |= {FAILED: tally.failed, answered_by("v1"): tally.by.get("v1", 0)}
        return [*lines, f"a client asks {RATE_HZ:g} times a second through the gateway: {tally}"]

    def _ask(self) -> dict[str, list[clients.Answer]]:
        """This repository's own files, over both protocols, through the Service."""
        files = [paths.REPOSITORY / name for name in FILES]
        with self.place.service(NAME) as at:
            self._await(lambda: clients.identify_http(at, files[:1]), f"an answer from {at}")
            found = {name: call(at, files) for name, call in clients.PROTOCOLS.items()}
        return {
            name: [
                clients.Answer(
                    Path(a.file).relative_to(paths.REPOSITORY), a.label, a.score, a.milliseconds
                )
                for a in answers
            ]
            for name, answers in found.items()
        }

    def _await(self, ask: Any, what: str) -> None:
        """Until there is an answer: an address that just came is not everywhere at once."""

        def probe() -> bool:
            try:
                ask()
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500 and error.response.status_code != 404:
                    raise
                return False
            return True

        wait_for(probe, what, timeout_seconds=ANSWER_SECONDS)

    # Acts 2 to 4.

    def _rollout(self, played: Played, began: float) -> tuple[list[str], str]:
        act, screen = played.act, self.screen
        source = uri(act.version)
        self.place.apply(NAME, self.spec(act.version, mirror=act.mirror))
        screen.beat(0.0, f"applied {source}: {VERSIONS[act.version].told}")
        revision, became, said, ended = "", "", "", None
        kept = False
        while ended is None or time.monotonic() - ended < AFTER_S:
            if time.monotonic() - began > act.limit_s:
                break
            time.sleep(LOOK_S)
            found = self._look(NAME)
            if found is None:
                continue
            status = found.get("status") or {}
            revision = revision or revision_of(status, source)
            requests = self._uncounted()
            view = self.place.view(NAME, found)
            if revision and (now := stage(view)) != said and now:
                said = now
                screen.beat(time.monotonic() - began, now, Tally.of(requests))
            frame = self._frame(requests, view)
            if ended is None and (became := outcome(status, revision)):
                ended = time.monotonic()
            # One moment stays: clients meet a version that is judged, and that is let live.
            met = Tally.of(requests).by.get(act.version, 0) >= MET
            if met and not kept and view["phase"] == "Canary" and act.outcome == "Promoted":
                kept = True
                screen.keep(*frame)
        tally = self._count()
        played.figures |= {
            FAILED: tally.failed,
            **{answered_by(name): tally.by.get(name, 0) for name in VERSIONS},
        }
        deployment = self.place.live(NAME)
        if became == "RolledBack":
            played.figures[JUDGED] = judged_by(facts.failed(deployment)[0])
        return self._told(act, became, tally, deployment), became

    def _told(self, act: Act, became: str, tally: Tally, deployment: Object) -> list[str]:
        """What to say of a rollout that is over: status's own words, and the client's count."""
        lines = [f"{became or 'undecided'}; the client: {tally}"]
        lines += failures(tally)
        if became == "RolledBack":
            newest = facts.failed(deployment)[0]
            lines.append(f"status: {newest.get('reason')}: {newest.get('message')}")
        elif became:
            explained = self.place.view(NAME, deployment)["explanation"]
            lines += [f"status: {line}" for line in explained["lines"][:2]]
        if act.version == "v2" and became == "Promoted" and self.answers:
            lines.append(self._otherwise())
        return lines

    def _otherwise(self) -> str:
        """What the version that serves now says otherwise of the same files."""
        before = {a.file: a.label for a in self.answers["HTTP"]}
        after = {a.file: a.label for a in self._ask()["HTTP"]}
        changed = [
            f"{f}: {before[f]} -> {label}" for f, label in after.items() if label != before[f]
        ]
        return f"of the {len(after)} files it names {len(changed)} otherwise" + (
            f" ({'; '.join(changed)})" if changed else ""
        )

    # Act 5.

    def _scaling(self, played: Played, began: float) -> list[str]:
        act, screen, calm = played.act, self.screen, self._calm
        if self._load is not None:
            self._load.stop()
        if calm is None:
            raise DemoFailed("the second model is not asked by anybody")
        before = self._measured(began, calm)
        rose = time.monotonic()
        screen.beat(time.monotonic() - began, f"load rises by {MORE_HZ:g} requests a second")
        start_s = time.time() - calm.began
        requests: list[Request] = []
        said, ready, late, kept = "", 0, 100.0, False
        wanted = act.expected[MORE_PODS], act.expected[LATE]
        with self._client(SLEEPER, "x", "", MORE_HZ) as more:
            shift_s = more.began - calm.began
            while time.monotonic() - rose < act.limit_s:
                time.sleep(LOOK_S)
                found = self._look(SLEEPER)
                if found is None:
                    continue
                now_s = time.time() - calm.began
                requests = since(calm.requests, start_s)
                own = len(requests)
                requests += [_moved(r, shift_s) for r in list(more.requests)]
                view = self.place.view(SLEEPER, found)
                scaling, ready = view["scaling"], int(view["pods"]["ready"])
                # Of those that are old enough to have been answered in time.
                from_s = now_s - TARGET_MS / 1000 - LATELY_S
                late = late_percent(requests, from_s, LATELY_S, CALM_HZ + MORE_HZ, TARGET_MS)
                told = f"replicas asked for: {scaling.get('desired')}, that serve: {ready}"
                if told != said:
                    said = told
                    screen.beat(time.monotonic() - began, told, Tally.of(requests))
                everyone = [*calm.requests, *requests[own:]]
                frame = (self._lately(requests, everyone, now_s), tree(view))
                screen.show(*frame)
                if not kept and ready < int(scaling.get("desired") or 0):
                    kept = True
                    screen.keep(*frame, pictured=False)
                if wanted[0].holds(ready - before) and wanted[1].holds(late) and from_s > start_s:
                    break
        tally = Tally.of(requests)
        played.figures |= {FAILED: tally.failed, MORE_PODS: ready - before, LATE: round(late, 1)}
        reason = str((self.place.live(SLEEPER)["status"].get("scaling") or {}).get("reason") or "")
        return [
            f"{before} -> {ready} pods serve; of the requests of the last {LATELY_S:g} s "
            f"{late:.1f} % had no answer within {TARGET_MS} ms",
            f"the client: {tally}",
            *failures(tally),
            f"status: {reason}",
        ]

    def _measured(self, began: float, calm: Load) -> int:
        """Wait until the operator knows what one pod of the second model holds; the pods there are.

        Raises:
            DemoFailed: it does not find out.
        """
        said = False
        while not (scaling := (view := self.place.view(SLEEPER))["scaling"]).get("capacityPerPod"):
            if not said:
                said = True
                self.screen.beat(
                    time.monotonic() - began, "waits: one pod is measured for a minute first"
                )
            if time.monotonic() - began > MEASURED_S:
                raise DemoFailed(
                    f"what one pod of {SLEEPER} holds is not known after {MEASURED_S:g} s: "
                    f"{scaling.get('hold')} {scaling.get('reason')}"
                )
            now_s = time.time() - calm.began
            self.screen.show(self._lately([], calm.requests, now_s), tree(view))
            time.sleep(LOOK_S)
        self.screen.beat(
            time.monotonic() - began,
            f"measured: one pod holds {scaling['capacityPerPod']} requests a second within "
            f"{TARGET_MS} ms p99 ({scaling.get('serviceTime')})",
        )
        return int(view["pods"]["ready"])

    # The client, and the view that moves.

    def _begin_load(self) -> None:
        """Ask v1 from now on, through the gateway, until act 5 or the end."""
        if not self.place.gateway:
            return
        self._await_route(NAME)
        self._load = self._loads.enter_context(self._client(NAME, TEXT, LABEL, RATE_HZ))

    def _await_ready(self, name: str) -> None:
        await_ready(self.place, name, lambda text: self.screen.note(f"{name}: {text}"))

    def _begin_calm(self) -> None:
        """Ask the second model a little from now on: what one pod holds is learned meanwhile."""
        if self._calm is None:
            self._await_ready(SLEEPER)
            self._calm = self._loads.enter_context(self._client(SLEEPER, "x", "", CALM_HZ))

    def _await_route(self, name: str) -> None:
        address = self.place.gateway_address()
        url = f"http://{address}/v2/models/{name}/ready"
        self._await(
            lambda: httpx.get(url, headers={"Host": host(name)}, timeout=5.0).raise_for_status(),
            f"{host(name)} through the gateway at {address}",
        )

    @contextmanager
    def _client(self, model: str, text: str, expected: str, rate_hz: float) -> Iterator[Load]:
        """Half of it over HTTP, half over gRPC, through the gateway."""
        self._await_route(model)
        address = self.place.gateway_address()
        orders = Orders(
            *(address, address, model, text),
            rate_hz=rate_hz / CLIENTS,
            limit_s=LONGEST_S,
            host=host(model),
            expected=expected,
            connections=0,
            timeout_s=float(PATIENCE_S),
        )
        with Load(orders) as load:
            yield load

    def _uncounted(self) -> list[Request]:
        """The requests of this act: those whose fate is known and that no former act counted."""
        return self._running().requests[self._counted :]

    def _count(self) -> Tally:
        """End the count of an act; each request belongs to exactly one."""
        tally = Tally.of(self._uncounted())
        self._counted += tally.sent
        return tally

    def _running(self) -> Load:
        if self._load is None:
            raise DemoFailed("there is no client; acts 2 to 4 need a gateway")
        return self._load

    def _look(self, name: str) -> Object | None:
        """A ModelDeployment; None: the API server does not answer just now."""
        try:
            return self.place.live(name)
        except (httpx.TransportError, KubeError):
            return None

    def _lately(self, act: Sequence[Request], all_: Sequence[Request], now_s: float) -> Any:
        """What the client sees: in this act, and of all that it sent in the last seconds."""
        return client_line(Tally.of(act), Tally.of(since(all_, now_s - LATELY_S)), LATELY_S)

    def _frame(
        self, requests: Sequence[Request], view: Mapping[str, Any] | None = None
    ) -> tuple[Any, ...]:
        """Show what the client sees and what status says; the same."""
        load = self._running()
        frame = (
            self._lately(requests, load.requests, time.time() - load.began),
            tree(view or self.place.view(NAME)),
        )
        self.screen.show(*frame)
        return frame


def failures(tally: Tally) -> list[str]:
    """Who failed, and how; none where nothing did."""
    if not tally.failed:
        return []
    by = ", ".join(f"{n} by {name or 'nobody named'}" for name, n in tally.failed_by.items())
    how = [f"{count} x {words}" for words, count in tally.errors.items()]
    return [f"failed responses, by the version that they name: {by}", *how]


def _moved(request: Request, shift_s: float) -> Request:
    """By the clock of another load."""
    r = request
    return Request(r.due_s + shift_s, r.late_s, r.took_s, r.error, r.client, r.status, r.answer)
