"""``tidegate-fetch``: fetch one model, and say how it went in the termination message.

Whatever happens, the message is one JSON line: the result, or a reason with field, value and mend.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tidegate.fetch.address import (
    AddressPolicy,
    Guard,
    environment_agents,
    environment_proxies,
    refusal_in,
)
from tidegate.fetch.errors import FetchError, disk_full
from tidegate.fetch.fetching import Result, Seen, fetch, look
from tidegate.fetch.progress import log
from tidegate.fetch.request import (
    Mounts,
    pinned_request,
    read_pin,
    read_request,
    read_request_text,
)

MAX_MESSAGE_BYTES = 4096  # the kubelet cuts a termination message there
UNEXPECTED = "FetchFailed"
"""The reason of errors that nobody foresaw; the operator tries again."""


def success_message(result: Result) -> str:
    """The termination message of a fetch that went well."""
    return json.dumps(
        {
            "digest": f"sha256:{result.digest}",
            "bytes": result.bytes,
            "files": result.files,
            "backend": result.backend,
            "layout": result.layout,
            "seconds": round(result.seconds, 3),
            "cached": result.cached,
            **({"sourceVersion": result.version} if result.version else {}),
            **({"sourceAddress": result.address} if result.address else {}),
        }
    )


def look_message(seen: Seen) -> str:
    """The termination message of a look at a source."""
    return json.dumps({"sourceVersion": seen.version, "sourceAddress": seen.address})


def failure_message(reason: str, message: str) -> str:
    """The termination message of a fetch that failed; at most 4 KiB, cut in the middle."""
    text, keep = message, len(message) // 2
    while True:
        out = json.dumps({"reason": reason, "message": text}, ensure_ascii=False)
        if len(out.encode(errors="replace")) < MAX_MESSAGE_BYTES:
            return out
        keep = keep * 9 // 10
        text = f"{message[:keep]} ... {message[-keep:]}"


def run(mounts: Mounts, look_at: str | None = None) -> tuple[int, str]:
    """Fetch, or look only; the exit code and the termination message.

    Args:
        mounts: where things are.
        look_at: the request, as JSON, whose source is looked at and not fetched.
    """
    started = time.monotonic()
    guard: Guard | None = None
    try:
        request = read_request(mounts) if look_at is None else read_request_text(look_at)
        addresses = AddressPolicy(
            request.policy.allowed_hosts, request.policy.allow_private_addresses
        )
        guard = Guard(addresses, (*environment_proxies(), *environment_agents()))
        with guard:
            if look_at is not None:
                message = look_message(asyncio.run(look(request, mounts)))
            else:
                pin = read_pin(mounts)
                if pin is not None:
                    request = pinned_request(request, mounts)
                message = success_message(asyncio.run(fetch(request, mounts, pin, started)))
        what = "model is laid out" if look_at is None else "source was looked at"
        log("info", what, **json.loads(message))
        return 0, message
    except Exception as exc:
        error = _as_fetch_error(exc, guard)
        if error is not None:
            reason, text = error.reason, error.message
        else:
            reason = UNEXPECTED
            text = f"unexpected {type(exc).__name__}: {str(exc)[:500]}. Look at the log of fetch."
            log("error", "unexpected error", traceback=_traceback(exc))
        log("error", text, reason=reason)
        return 1, failure_message(reason, text)


def _as_fetch_error(exc: Exception, guard: Guard | None) -> FetchError | None:
    if isinstance(exc, FetchError) and not exc.retryable:
        return exc
    # A library may have swallowed the refusal and reported a connection error instead.
    if guard is not None and guard.refusal is not None:
        return guard.refusal
    if error := refusal_in(exc):
        return error
    return disk_full(exc, exc.filename or "?") if isinstance(exc, OSError) else None


def _traceback(exc: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(exc))[-4000:]


def _write_termination(path: Path, message: str) -> None:
    """Write the message; where the file is not there (outside a pod), print it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    except OSError:
        print(message)
        return
    with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as f:
        f.write(message + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    defaults = Mounts()
    parser = argparse.ArgumentParser(prog="tidegate-fetch", description=__doc__)
    parser.add_argument("request", nargs="?", type=Path, default=defaults.request)
    parser.add_argument("--pin", type=Path, default=defaults.pin)
    parser.add_argument("--credentials", type=Path, default=defaults.credentials)
    parser.add_argument("--ca", type=Path, default=defaults.ca)
    parser.add_argument("--golden", type=Path, default=defaults.golden)
    parser.add_argument("--look", metavar="REQUEST", help="look at the source, fetch nothing")
    parser.add_argument("--termination-log", type=Path, default=defaults.termination_log)
    options = vars(parser.parse_args(argv))
    look_at = options.pop("look")
    mounts = Mounts(**options)
    code, message = run(mounts, look_at)
    _write_termination(mounts.termination_log, message)
    sys.stderr.flush()
    return code
