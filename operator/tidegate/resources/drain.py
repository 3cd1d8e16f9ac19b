"""How a pod leaves without losing a request: the preStop command, the timeouts, the probes.

When a pod is deleted, two things start at once: its address is taken out of the EndpointSlices
(kube-proxy and gateways follow a moment later), and the kubelet runs Triton's preStop. Envoy is a
native sidecar: it gets its SIGTERM only after Triton has gone. So the preStop command

1. tells Envoy to fail its health: it goes on taking connections, but every answer now carries
   ``Connection: close`` or GOAWAY, so clients move on to other pods by themselves;
2. signals Envoy to close idle connections too, with notice: a client that kept one in its pool
   would otherwise come back to a pod whose Triton has gone;
3. waits at least until the endpoint's removal has spread (``spread_s``), and then until nothing
   is in flight and nothing new came for `QUIET_S`, so that even a client with a stale address is
   served, and a slow inference ends;
4. gives up at a bound, so that one endless stream cannot hold a GPU.

Then comes SIGTERM for Triton, whose own exit timeout is a second net for what is left.

The kubelet runs preStop also when a liveness probe failed and only the container restarts; the
postStart command takes the drain back then.

Needs bash, mv and sleep in the image: the admin port is asked through ``/dev/tcp``. Pure.
"""

from typing import Any, Final

from tidegate.resources.sidecar import (
    ADMIN_PORT,
    DRAIN_FOLDER,
    DRAIN_SIGNAL,
    INTERNAL_PORT,
    LIVE_PATH,
    READY_PATH,
    TRITON_HTTP_PORT,
    TRITON_LIVE_PATH,
    TRITON_READY_PATH,
)

QUIET_S: Final = 2
"""So long nothing new must come before the pod counts as left by all: ten round trips of the
slowest sensible client, and less than any sensible retry back-off adds."""
IN_FLIGHT_S: Final = 60
"""So long, after the spread, a request in flight may still take: the slowest inference we promise
to carry through a rolling restart."""
MARGIN_S: Final = 10
"""Between the last timeout and SIGKILL: the kubelet's own delays, and Envoy's exit."""


def drain_limit_s(spread_s: int) -> int:
    """The most seconds that the preStop command takes."""
    return spread_s + IN_FLIGHT_S + QUIET_S


def grace_period_s(spread_s: int, exit_timeout_s: int) -> int:
    """``terminationGracePeriodSeconds``: preStop, then Triton's exit, then a margin.

    It is a ceiling: an idle pod is gone ``spread_s`` + `QUIET_S` and about a second after its
    deletion.
    """
    return drain_limit_s(spread_s) + exit_timeout_s + MARGIN_S


def pre_stop_command(
    *,
    spread_s: int,
    sidecar: bool = True,
    admin_port: int = ADMIN_PORT,
    drain_folder: str = DRAIN_FOLDER,
) -> list[str]:
    """The preStop ``exec`` command of the Triton container.

    Args:
        spread_s: the least time for the endpoint's removal to reach every proxy
            (``platform.pre_stop_seconds``).
        sidecar: False: nobody can be asked what is in flight; wait for the spread only, Triton's
            exit timeout does the rest.
        admin_port: of Envoy, on the loopback.
        drain_folder: see `DRAIN_FOLDER`.
    """
    if not sidecar:
        return ["bash", "-c", f"sleep {spread_s}"]
    limit_s = drain_limit_s(spread_s)
    script = f"""{_functions(admin_port, drain_folder)}
admin POST /healthcheck/fail >/dev/null
signal 1.0
seen= quiet_since=$SECONDS  # whole seconds that began before now: hence -gt below
while [ "$SECONDS" -lt {limit_s} ]; do
  in_flight=0 started=0
  while IFS=': ' read -r name value; do
    case $name in
      *active) in_flight=$((in_flight + value)) ;;
      *total) started=$((started + value)) ;;
    esac
  done < <(admin GET '/stats?filter={_IN_FLIGHT_STATS}')
  if [ "$started" != "$seen" ] || [ "$in_flight" != 0 ]; then
    seen=$started quiet_since=$SECONDS
  fi
  if [ "$SECONDS" -gt {spread_s} ] && [ $((SECONDS - quiet_since)) -gt {QUIET_S} ]; then
    exit 0
  fi
  sleep 0.5
done
echo "drain: $in_flight requests still in flight after {limit_s} s" >/proc/1/fd/2
exit 0
"""
    return ["bash", "-c", script]


def post_start_command(
    *, admin_port: int = ADMIN_PORT, drain_folder: str = DRAIN_FOLDER
) -> list[str]:
    """The postStart ``exec`` command of the Triton container, with the sidecar: ends a drain.

    Does nothing at a pod's first start. Never fails: that would end the container.
    """
    script = f"""{_functions(admin_port, drain_folder)}
admin POST /healthcheck/ok >/dev/null
signal 0.0
exit 0
"""
    return ["bash", "-c", script]


_IN_FLIGHT_STATS: Final = (
    "^cluster.(client|pinned|mirrored|streaming)_(http|grpc).upstream_rq_"
    "(total|active|pending_active)$"
)


def _functions(admin_port: int, drain_folder: str) -> str:
    """`admin METHOD PATH` prints the answer of Envoy's admin, nothing if there is none."""
    return rf"""
admin() {{
  (exec 3<>/dev/tcp/127.0.0.1/{admin_port} &&
    printf '%s %s HTTP/1.1\r\nHost: drain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' \
      "$1" "$2" >&3 &&
    while IFS= read -r -t 5 line <&3; do printf '%s\n' "${{line%$'\r'}}"; done) 2>/dev/null
}}
signal() {{
  printf %s "$1" >{drain_folder}/.signal &&
    mv -f {drain_folder}/.signal {drain_folder}/{DRAIN_SIGNAL}
}}"""


def startup_probe(*, sidecar: bool = True) -> dict[str, Any]:
    """Triton's startupProbe: the server answers at all, however long the models took to load.

    A load is never killed: the threshold is larger than any load. How long a revision may take
    to become ready is the rollout's ``progressDeadline``, which the operator keeps.
    """
    return _http_probe(TRITON_LIVE_PATH, sidecar) | {
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 7 * 24 * 3600,
    }


def readiness_probe(*, sidecar: bool = True) -> dict[str, Any]:
    """Triton's readinessProbe: all models are ready. Three misses: overload is not unreadiness."""
    return _http_probe(TRITON_READY_PATH, sidecar) | {
        "periodSeconds": 2,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def liveness_probe(*, sidecar: bool = True) -> dict[str, Any]:
    """Triton's livenessProbe: a server that hangs for a minute is started again.

    It is asked through Envoy, which restarts within seconds if it dies, so that a dead Envoy does
    not cost Triton its loaded models.
    """
    return _http_probe(TRITON_LIVE_PATH, sidecar) | {
        "periodSeconds": 10,
        "timeoutSeconds": 10,
        "failureThreshold": 6,
    }


def sidecar_startup_probe() -> dict[str, Any]:
    """Envoy's startupProbe: Triton's container starts only after it, so it asks often."""
    return {
        "httpGet": {"path": READY_PATH, "port": INTERNAL_PORT},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 60,
    }


def sidecar_liveness_probe() -> dict[str, Any]:
    """Envoy's livenessProbe."""
    return {
        "httpGet": {"path": LIVE_PATH, "port": INTERNAL_PORT},
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def _http_probe(path: str, sidecar: bool) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": INTERNAL_PORT if sidecar else TRITON_HTTP_PORT}}
