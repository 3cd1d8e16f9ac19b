"""Samples and labels are posted by who may, and become answers to gates."""

import asyncio
import copy
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from e2e.cluster.pki import Authority
from tidegate.quality.policy import ANNOTATION
from tidegate.quality.report import Report, report
from tidegate.runtime.kinds import Kind
from tidegate.runtime.kube import KubeError, Written
from tidegate.runtime.quality.answering import MANAGER, Answering
from tidegate.runtime.quality.main import (
    CERTIFICATE_CHECK_S,
    Certificate,
    Settings,
    SettingsError,
)
from tidegate.runtime.quality.server import AT_ONCE, REMEMBERED_S, Access, Intake, Worker
from tidegate.runtime.quality.store import FullError, Store
from tidegate.view import document as view
from tidegate.view.reasons import explanation

POLICY = '{"minAccuracy": "90%", "maxShift": "10%", "leaveOut": ["age"]}'
ONE = "/api/v1/namespaces/demo/modeldeployments/m"
START = datetime(2026, 3, 1, tzinfo=UTC)


def deployment(policy: str | None = POLICY, canary: str = "bbb", **meta: Any) -> dict[str, Any]:
    revisions: dict[str, Any] = {"stable": {"hash": "aaa"}}
    if canary:
        revisions["canary"] = {"hash": canary}
    return {
        "metadata": {
            "name": "m",
            "namespace": "demo",
            "uid": "u-1",
            "generation": 3,
            "annotations": {} if policy is None else {ANNOTATION: policy},
            **meta,
        },
        "spec": {"rollout": {"gates": ["Accurate"]}},
        "status": {
            "revisions": revisions,
            "rollout": {"phase": "Canary" if canary else "Promoted"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}],
        },
    }


class Place:
    """An API server that knows two tokens, and one ModelDeployment."""

    def __init__(self) -> None:
        self.deployment = deployment()
        self.applied: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.allowed = {"pipeline": True, "reader": False}
        self.clock = 0.0
        self.now = START
        self.error: KubeError | None = None
        self.worker = Worker(Store(":memory:"))
        self.intake: Intake
        self.client: TestClient[web.Request, web.Application]
        self.answering: Answering

    async def review(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.asked.append((await request.json())["spec"]["resourceAttributes"])
        if token not in self.allowed:
            return web.json_response({}, status=401)
        return web.json_response({"status": {"allowed": self.allowed[token]}}, status=201)

    async def apply(
        self,
        kind: Kind,
        document: dict[str, Any],
        *,
        manager: str,
        force: bool,
        sub: str | None = None,
    ) -> Written:
        assert (str(kind), manager, force, sub) == ("ModelDeployment", MANAGER, True, "status")
        if self.error is not None:
            raise self.error
        status = document["status"]
        self.applied.append(status)
        types = {c["type"] for c in status.get("conditions", ())}
        there = self.deployment["status"]
        others = [c for c in there["conditions"] if c["type"] not in {"Accurate", "Steady"}]
        assert types <= {"Accurate", "Steady"}
        there["conditions"] = others + copy.deepcopy(status.get("conditions", []))
        there["quality"] = copy.deepcopy(status.get("quality"))
        self.deployment["metadata"]["managedFields"] = (
            [{"manager": MANAGER, "subresource": "status"}] if status else []
        )
        return Written(document, False)

    async def look(self, seconds: float = 5.0) -> None:
        self.clock += seconds
        self.now += timedelta(seconds=seconds)
        await self.answering.look([self.deployment])

    async def post(self, what: str, *items: Any, token: str = "pipeline") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.post(f"{ONE}/{what}", json={what: items}, headers=headers) as got:
            return got.status, await got.json()

    async def label(self, right: int, labels: int, revision: str = "bbb") -> None:
        status, _ = await self.post(
            "labels", {"revision": revision, "right": right, "labels": labels}
        )
        assert status == 200

    def condition(self, kind: str) -> tuple[str, str] | None:
        for c in self.deployment["status"]["conditions"]:
            if c["type"] == kind:
                return c["status"], c["reason"]
        return None


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with _place() as found:
        yield found


@asynccontextmanager
async def _place() -> AsyncIterator[Place]:
    place = Place()
    api = web.Application()
    api.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", place.review)
    async with TestServer(api) as server, aiohttp.ClientSession() as session:
        access = Access(str(server.make_url("")).rstrip("/"), session, lambda: place.clock)
        place.intake = Intake(access, place.worker, now=lambda: place.now.timestamp())
        place.answering = Answering(
            place,
            place.worker,
            place.intake.known,
            now=lambda: place.now,
            clock=lambda: place.clock,
        )
        async with TestClient(TestServer(place.intake.app())) as place.client:
            await place.look()
            place.intake.looked = True
            yield place
    place.worker.close()


async def test_labels_answer_the_gate(place: Place) -> None:
    assert place.condition("Accurate") == ("Unknown", "TooFewLabels")
    await place.label(98, 100)
    await place.look()
    assert place.condition("Accurate") == ("Unknown", "TooFewLabels")
    await place.label(882, 900)
    await place.look()
    assert place.condition("Accurate") == ("True", "Shown")
    (line,) = view(place.deployment, now=place.now)["quality"]["revisions"]
    assert line["revision"] == "bbb"
    assert line["accuracy"].startswith("98.0% of 1,000 labels right (9")
    assert any(
        "98.0% of 1,000 labels" in said
        for said in explanation(place.deployment, "bbb", place.now).lines
    )
    # Promoted; the next canary has shown nothing yet, whatever came before.
    place.deployment["status"]["rollout"]["phase"] = "Promoted"
    await place.look()
    assert place.condition("Accurate") == ("Unknown", "NothingOnTrial")
    place.deployment["status"]["rollout"]["phase"] = "Canary"
    place.deployment["status"]["revisions"] = {"stable": {"hash": "bbb"}, "canary": {"hash": "ccc"}}
    await place.look()
    assert place.condition("Accurate") == ("Unknown", "TooFewLabels")


async def test_who_stops_looking_closes_the_gate(place: Place) -> None:
    await place.label(990, 1000)
    await place.look()
    await place.answering.withdraw()
    assert place.condition("Accurate") == ("Unknown", "NotLookedAt")
    assert place.deployment["status"]["quality"]
    before = len(place.applied)
    await place.answering.withdraw()
    assert len(place.applied) == before
    await place.look()
    assert place.condition("Accurate") == ("True", "Shown")


async def test_too_many_wrong_answers_close_the_gate(place: Place) -> None:
    await place.label(600, 1000)
    await place.look()
    assert place.condition("Accurate") == ("False", "TooManyWrong")


async def test_labels_of_single_requests(place: Place) -> None:
    samples = [
        {"revision": "bbb", "id": f"r{i}", "label": "cat", "values": {"score": 0.5, "age": 3}}
        for i in range(400)
    ]
    assert await place.post("samples", *samples) == (
        200,
        {"taken": 400, "known": 0, "unknown": 0, "leftOut": []},
    )
    labels = [{"id": f"r{i}", "label": "cat" if i else "dog"} for i in range(401)]
    status, told = await place.post("labels", *labels)
    assert (status, told["taken"], told["unknown"]) == (200, 400, 1)
    await place.look()
    assert place.condition("Accurate") == ("True", "Shown")
    bins, _ = await place.worker.do(lambda store: store.figures("demo/m"))
    assert set(bins) == {"label", "score"}, "age is left out"


async def test_a_shift_closes_the_gate(place: Place) -> None:
    def some(revision: str, cats: int, dogs: int) -> list[dict[str, Any]]:
        one = {"revision": revision}
        return [one | {"label": "cat"}] * cats + [one | {"label": "dog"}] * dogs

    await place.post("samples", *some("aaa", 100, 100))  # sets the bins
    for _ in range(3):
        await place.post("samples", *some("aaa", 400, 400))
        await place.post("samples", *some("bbb", 700, 100))
    await place.look()
    assert place.condition("Steady") == ("False", "Shifted")
    message = place.deployment["status"]["conditions"][-1]["message"]
    assert message.startswith("label, cat: 87.5% instead of 50.0% (shift of ")
    assert message.endswith("; allowed 10%")


async def test_nothing_is_written_while_nothing_changes(place: Place) -> None:
    assert len(place.applied) == 1
    for _ in range(5):
        await place.look(60.0)
    assert len(place.applied) == 1


async def test_what_did_not_change_is_not_worked_out_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(*arguments: Any) -> Report:
        made.append(1)
        return report(*arguments)

    monkeypatch.setattr("tidegate.runtime.quality.answering.report", counted)
    for _ in range(5):
        await place.look()
    assert len(made) == 0
    await place.label(9, 10)
    await place.look()
    await place.look()
    assert len(made) == 1
    place.deployment["status"]["revisions"]["canary"] = {"hash": "ccc"}
    await place.look()
    assert len(made) == 2
    await place.look(86_400.0)  # another day; and all was tidied
    assert len(made) == 3


async def test_numbers_alone_are_not_written_often(place: Place) -> None:
    for _ in range(10):
        await place.label(9, 10)
        await place.look(2.0)
    assert len(place.applied) <= 3
    before = len(place.applied)
    await place.label(9990, 10000)
    await place.look(0.1)
    assert len(place.applied) == before + 1, "an answer is given at once"


async def test_at_rest_numbers_are_written_even_less_often(place: Place) -> None:
    place.deployment["status"]["rollout"]["phase"] = "Promoted"
    await place.look()
    before = len(place.applied)
    for _ in range(30):
        await place.label(9, 10, "aaa")
        await place.look(60.0)
    assert 2 <= len(place.applied) - before <= 3


async def test_a_policy_that_cannot_be_used_answers_nothing(place: Place) -> None:
    await place.label(990, 1000)
    await place.look()
    place.deployment["metadata"]["annotations"][ANNOTATION] = '{"minAccuracy": 0.9}'
    await place.look()
    assert place.condition("Accurate") == ("Unknown", "QualityInvalid")
    status, told = await place.post("labels", {"revision": "bbb", "right": 1, "labels": 1})
    assert status == 409
    assert "annotation" in told["error"]


async def test_who_asks_no_more_is_forgotten(place: Place) -> None:
    await place.label(990, 1000)
    await place.look()
    del place.deployment["metadata"]["annotations"][ANNOTATION]
    await place.look()
    assert place.condition("Accurate") is None
    assert place.condition("Ready") is not None
    assert len(place.applied) == 3
    await place.look()
    assert len(place.applied) == 3
    status, told = await place.post("labels", {"revision": "bbb", "right": 1, "labels": 1})
    assert status == 404
    assert ANNOTATION in told["error"]
    await place.look(601.0)
    assert await place.worker.do(lambda store: store.models()) == set()


async def test_a_model_that_was_made_again_has_shown_nothing(place: Place) -> None:
    await place.label(990, 1000)
    await place.look()
    assert place.condition("Accurate") == ("True", "Shown")
    # The same name and the same spec, so the same revisions; what bytes they are is not known.
    place.deployment = deployment(uid="u-2")
    await place.look()
    assert place.condition("Accurate") == ("Unknown", "TooFewLabels")
    assert await place.worker.do(lambda store: store.figures("demo/m")) == ({}, {})
    await place.label(990, 1000)
    # Nor where nobody looked while it was made again.
    place.answering = Answering(
        place, place.worker, {}, now=lambda: place.now, clock=lambda: place.clock
    )
    place.deployment = deployment(uid="u-3")
    await place.look()
    assert place.condition("Accurate") == ("Unknown", "TooFewLabels")


async def test_answers_are_gone_soon_after_they_may_be_kept(place: Place) -> None:
    place.deployment["metadata"]["annotations"][ANNOTATION] = '{"minAccuracy": "9%", "keep": "20s"}'
    await place.look()
    await place.post("samples", *({"revision": "bbb", "id": f"{i}", "label": "cat"} for i in "ab"))
    place.now += timedelta(seconds=19)
    assert (await place.post("labels", {"id": "a", "label": "cat"}))[1]["taken"] == 1
    place.now += timedelta(seconds=2)
    assert (await place.post("labels", {"id": "b", "label": "cat"}))[1]["unknown"] == 1
    await place.look(20.0)
    query = "SELECT count(*) FROM waiting"
    assert await place.worker.do(lambda store: store._db.execute(query).fetchone()) == (0,)


async def test_no_room_to_tidy_is_no_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise FullError("no room")

    await place.label(990, 1000)
    for name in ("tidy", "scrub", "meet"):
        monkeypatch.setattr(Store, name, full)
    await place.look(601.0)
    assert place.condition("Accurate") == ("True", "Shown")
    place.deployment = deployment(uid="u-2")
    await place.look()
    item = {"revision": "bbb", "right": 1, "labels": 1}
    assert (await place.post("labels", item))[0] == 404, "it would count for the one before"


async def test_before_the_first_look_nothing_is_taken_or_refused(place: Place) -> None:
    place.intake.looked = False
    item = {"revision": "bbb", "right": 1, "labels": 1}
    headers = {"Authorization": "Bearer pipeline"}
    async with place.client.post(f"{ONE}/labels", json=item, headers=headers) as got:
        assert (got.status, got.headers["Retry-After"]) == (503, "1")
    async with place.client.get("/readyz") as got:
        assert got.status == 503
    async with place.client.get("/healthz") as got:
        assert got.status == 200
    place.intake.looked = True
    async with place.client.get("/readyz") as got:
        assert got.status == 200


async def test_bodies_wait_for_their_turn_and_not_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.runtime.quality.server.BODY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("tidegate.runtime.quality.server.MOST_IN_HAND", AT_ONCE + 1)
    reader, writer = await asyncio.open_connection(place.client.host, place.client.port)
    begun = f"POST {ONE}/labels HTTP/1.1\r\nHost: q\r\nAuthorization: Bearer pipeline\r\n"
    # A body that does not come.
    writer.write(f"{begun}Content-Length: 100\r\n\r\n{{".encode())
    assert b" 408 " in await reader.readline()
    writer.close()
    held = [place.intake._turn.acquire() for _ in range(AT_ONCE)]
    await asyncio.gather(*held)
    item = {"revision": "bbb", "right": 1, "labels": 1}
    waiting = [asyncio.create_task(place.post("labels", item)) for _ in range(AT_ONCE + 1)]
    while place.intake._in_hand <= AT_ONCE:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await place.post("labels", item))[0] == 503
    for _ in range(AT_ONCE):
        place.intake._turn.release()
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    assert (await place.post("labels", item))[0] == 200


async def test_an_api_server_that_refuses_a_write_is_asked_again(place: Place) -> None:
    place.error = KubeError("no")
    await place.label(990, 1000)
    await place.look()
    place.error = None
    await place.look()
    assert place.condition("Accurate") == ("True", "Shown")


@pytest.mark.parametrize(
    ("token", "status"), [("", 401), ("a b", 401), ("stranger", 401), ("reader", 403)]
)
async def test_who_may_not_report_is_refused(place: Place, token: str, status: int) -> None:
    item = {"revision": "bbb", "right": 1, "labels": 1}
    assert (await place.post("labels", item, token=token))[0] == status
    assert (await place.post("samples", {"revision": "bbb"}, token=token))[0] == status
    assert await place.worker.do(lambda store: store.figures("demo/m")) == ({}, {})


async def test_the_right_is_asked_for_by_name_and_again_after_a_while(place: Place) -> None:
    await place.label(1, 1)
    await place.label(1, 1)
    assert place.asked == [
        {
            "group": "tidegate.dev",
            "resource": "modeldeployments",
            "verb": "report",
            "namespace": "demo",
            "name": "m",
        }
    ]
    # What one may is not what another may, nor elsewhere.
    item = {"revision": "bbb", "right": 1, "labels": 1}
    assert (await place.post("labels", item, token="reader"))[0] == 403
    headers = {"Authorization": "Bearer pipeline"}
    async with place.client.post(f"{ONE}2/labels", json={}, headers=headers) as got:
        assert got.status == 404
    assert [a["name"] for a in place.asked] == ["m", "m", "m2"]
    place.allowed["pipeline"] = False
    place.clock += REMEMBERED_S + 1.0
    assert (await place.post("labels", item))[0] == 403


@pytest.mark.parametrize(
    ("what", "item", "named"),
    [
        ("samples", {"revision": "zzz"}, "aaa, bbb"),
        ("labels", {"revision": "zzz", "right": 1, "labels": 1}, "aaa, bbb"),
        ("samples", {"revision": "bbb", "values": {"text": "secret words"}}, "values.text"),
        ("labels", {"id": "1"}, "labels.0"),
    ],
)
async def test_what_cannot_be_used_is_named(place: Place, what: str, item: Any, named: str) -> None:
    status, told = await place.post(what, item)
    assert status == 422
    assert named in told["error"]
    assert "secret" not in told["error"]


async def test_a_body_that_is_too_long(place: Place) -> None:
    headers = {"Authorization": "Bearer pipeline"}
    body = io.BytesIO(b" " * (2 << 20))
    async with place.client.post(f"{ONE}/samples", data=body, headers=headers) as got:
        assert got.status == 413


async def test_an_api_server_that_does_not_answer(place: Place) -> None:
    place.intake.access._server = "http://127.0.0.1:1"
    assert (await place.post("labels", {"id": "1", "label": "a"}))[0] == 502


async def test_many_at_once_count_each(place: Place) -> None:
    await asyncio.gather(*(place.label(9, 10) for _ in range(30)))
    _, figures = await place.worker.do(lambda store: store.figures("demo/m"))
    assert (figures["bbb"].right, figures["bbb"].labels) == (270, 300)


def test_a_certificate_that_was_renewed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tidegate.runtime.quality.main.time.monotonic", lambda: clock[0])
    authority = Authority.create()
    authority.issue("first").write(tmp_path, "tls")
    certificate = Certificate(tmp_path)

    def answered() -> str:
        """Who the other end of a handshake sees."""
        trust = ssl.create_default_context(cadata=authority.pair.certificate.decode())
        trust.check_hostname = False
        ways = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trust.wrap_bio(ways[0], ways[1])
        server = certificate.context.wrap_bio(ways[1], ways[0], server_side=True)
        for _ in range(4):
            for end in (client, server):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        return str((client.getpeercert() or {})["subject"])

    assert "first" in answered()
    authority.issue("second").write(tmp_path, "tls")
    clock[0] = CERTIFICATE_CHECK_S - 1.0
    certificate.renew()
    assert "first" in answered()
    clock[0] += 1.0
    certificate.renew()
    assert "second" in answered()
    (tmp_path / "tls.key").write_text("none")
    clock[0] += CERTIFICATE_CHECK_S
    certificate.renew()
    assert "second" in answered()


class TestSettings:
    def test_what_the_chart_sets(self, tmp_path: Path) -> None:
        found = Settings.from_environment(
            {
                "TIDEGATE_DATA": str(tmp_path),
                "TIDEGATE_HTTP_PORT": "8081",
                "TIDEGATE_NAMESPACES": "a, b",
                "TIDEGATE_MAX_BYTES": "1000000",
                "TIDEGATE_TLS_FOLDER": "/tls",
            }
        )
        assert found == Settings(tmp_path, 8081, ("a", "b"), Path("/tls"), 1_000_000)

    @pytest.mark.parametrize(
        "change", [{"TIDEGATE_DATA": "/nowhere"}, {"TIDEGATE_HTTP_PORT": "http"}]
    )
    def test_what_cannot_be_used(self, tmp_path: Path, change: dict[str, str]) -> None:
        with pytest.raises(SettingsError, match=next(iter(change))):
            Settings.from_environment({"TIDEGATE_DATA": str(tmp_path)} | change)
