import json
from pathlib import Path

from e2e.cluster.audit import AuditLog, by_kind


def event(user: str, agent: str, verb: str = "patch", subresource: str = "") -> str:
    target = {"resource": "deployments", "namespace": "a", "name": "b"}
    if subresource:
        target["subresource"] = subresource
    return json.dumps(
        {
            "verb": verb,
            "user": {"username": user},
            "userAgent": agent,
            "objectRef": target,
            "requestURI": "/apis/apps/v1/namespaces/a/deployments/b",
            "responseStatus": {"code": 200},
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
        }
    )


def test_counts_only_what_came_after_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text(event("old", "x") + "\n")
    log = AuditLog(path)
    with path.open("a") as sink:
        sink.write(event("new", "x") + "\n")
    assert [write.user for write in log.writes()] == ["new"]


def test_filters_by_user_and_agent(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    path.write_text("".join(event(u, a) + "\n" for u in ("sa:op", "jane") for a in ("k", "t")))
    assert len(log.writes()) == 4
    assert [w.user_agent for w in log.writes(user="op", user_agent="t")] == ["t"]


def test_a_line_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    path.write_text(event("a", "x") + "\n" + event("b", "x")[:40])
    assert [write.user for write in log.writes()] == ["a"]


def test_kinds_are_told_with_their_subresource(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    path.write_text(event("a", "x", subresource="scale") + "\n")
    assert by_kind(log.writes()) == {"patch deployments/scale": 1}
