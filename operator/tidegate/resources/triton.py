"""Triton's command line.

Model control is ``none``: what runs is what the revision holds, and no client changes it. A model
that does not load leaves the server up (``--exit-on-error=false``): live, never ready, and the
repository index tells Triton's own reason, which a server that exits would take with it.

Pure.
"""

from typing import Final

from tidegate.resources.sidecar import Ports

REPOSITORY_PATH: Final = "/models"
RESPONSE_CACHE_BYTES: Final = 128 << 20
"""Of Triton's local response cache, where the tuning asks for one: room for thousands of typical
answers, and a sixteenth of the default memory limit."""

RESTRICTED_APIS: Final = ("model-repository", "shared-memory", "logging", "trace")
"""Closed to clients. The sidecar refuses them by path; without it Triton itself does by key."""
RESTRICTED_HTTP_HEADER: Final = "tidegate-key"
RESTRICTED_GRPC_HEADER: Final = f"triton-grpc-protocol-{RESTRICTED_HTTP_HEADER}"
"""Triton adds the prefix itself."""


def triton_args(
    *,
    exit_timeout_s: int,
    gpu: bool,
    restricted_key: str | None = None,
    response_cache: bool = False,
    repository: str = REPOSITORY_PATH,
    ports: Ports | None = None,
) -> list[str]:
    """The argv of the Triton container, ``tritonserver`` first.

    Args:
        exit_timeout_s: how long Triton waits for requests in flight after SIGTERM; one budget for
            HTTP, gRPC and models.
        gpu: False leaves the GPU metrics off, which otherwise warn at every start.
        restricted_key: None with the sidecar: Triton listens on the loopback only. Without the
            sidecar: the value that the header `RESTRICTED_HTTP_HEADER` (gRPC:
            `RESTRICTED_GRPC_HEADER`) must carry for the APIs in `RESTRICTED_APIS`; Triton then
            listens on every address.
        response_cache: provide the cache that ``model.config.responseCache`` uses.
        repository: the model repository.
        ports: others than those of a pod.

    Raises:
        ValueError: a key that is empty or could not stand in a header.
    """
    ports = ports or Ports()
    address = "127.0.0.1" if restricted_key is None else "0.0.0.0"
    arguments = [
        "tritonserver",
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--exit-on-error=false",
        "--strict-readiness=true",
        f"--exit-timeout-secs={exit_timeout_s}",
        f"--http-address={address}",
        f"--http-port={ports.triton_http}",
        f"--grpc-address={address}",
        f"--grpc-port={ports.triton_grpc}",
        f"--metrics-address={address}",
        f"--metrics-port={ports.triton_metrics}",
        f"--allow-gpu-metrics={'true' if gpu else 'false'}",
        "--log-format=ISO8601",
    ]
    if restricted_key is not None:
        if not restricted_key.isascii() or not restricted_key.isalnum():
            raise ValueError("restricted_key must be letters and digits, at least one")
        apis = ",".join(RESTRICTED_APIS)
        arguments += [
            f"--http-restricted-api={apis}:{RESTRICTED_HTTP_HEADER}={restricted_key}",
            f"--grpc-restricted-protocol={apis}:{RESTRICTED_HTTP_HEADER}={restricted_key}",
        ]
    if response_cache:
        arguments.append(f"--cache-config=local,size={RESPONSE_CACHE_BYTES}")
    return arguments
