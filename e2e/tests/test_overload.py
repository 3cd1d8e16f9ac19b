"""At twice what one pod holds: those who are served are served in time, and as many as can be."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from e2e.bench.overload import limit
from e2e.load import Load, Orders
from e2e.models.sleeper.build import MODEL, Times, build
from e2e.tests import artefacts
from e2e.tests.space import Space, model_deployment

TIMES: Final = Times()
TARGET_MS: Final = 1000
SETTLE_S: Final = 5.0
SECONDS: Final = 25.0
LIMIT: Final = limit(TIMES, TARGET_MS / 2)
"""Half of what the target allows: the machine is small, and the whole cluster runs on it."""
LATE: Final = 0.01
BEST: Final = 0.85
"""Of all that the pod could serve, for the same reason; `e2e.bench.overload` measures it alone."""


def test_at_twice_the_capacity_the_accepted_keep_the_objective(space: Space) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder) / "repository", TIMES) / MODEL
        files = {
            p.relative_to(built).as_posix(): p.read_bytes()
            for p in sorted(built.rglob("*"))
            if p.is_file()
        }
    spec = {
        "slo": {"latency": {"quantile": "0.99", "target": f"{TARGET_MS}ms"}},
        "traffic": {"overload": {"maxPending": LIMIT}},
        "runtime": {"resources": {"cpu": "500m"}},
    }
    space.apply(model_deployment(MODEL, artefacts.put("overload", files), spec))
    space.ready(MODEL)
    # Over one protocol: each has a limit of its own.
    orders = Orders(
        space.address(MODEL),
        None,
        MODEL,
        "x",
        rate_hz=2 * TIMES.per_s,
        connections=0,
        timeout_s=10.0,
    )
    with Load(orders) as load:
        load.await_more(round(SECONDS * orders.rate_hz))
    counted = [r for r in load.requests if SETTLE_S <= r.due_s < SECONDS]
    statuses = Counter(r.status for r in counted)
    served = [r for r in counted if not r.error]
    late = [r for r in served if r.took_s * 1000 > TARGET_MS]
    per_s = (len(served) - len(late)) / (SECONDS - SETTLE_S)
    print(f"{statuses}; {per_s:.1f} of {TIMES.per_s:.0f} a second in time, {len(late)} late")
    assert set(statuses) == {"200", "503"}
    assert len(late) <= LATE * len(served)
    assert per_s >= BEST * TIMES.per_s
