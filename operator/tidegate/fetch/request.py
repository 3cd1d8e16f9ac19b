"""What the operator asks the fetch container for: ``fetch.json``, and the files mounted beside.

The types are the contract between operator and fetch container; unknown fields are refused.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from tidegate.api.block import Block
from tidegate.fetch.errors import ConfigInvalid, SchemeRefused
from tidegate.platform import FetchPolicy, Verify

PIN_PATTERN = re.compile(r"sha256:([0-9a-f]{64})")


class Policy(FetchPolicy):
    """What the platform allows; see `tidegate.platform.FetchPolicy`."""

    @field_validator("allow_private_addresses")
    @classmethod
    def _are_networks(cls, value: Iterable[str]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(v, strict=False)) for v in value)


class FetchRequest(Block):
    """One model to fetch. ``target``, ``source`` and ``cache`` are folders in this container."""

    uri: str = Field(min_length=1, max_length=1024)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    endpoint: str | None = None
    region: str | None = None
    model_name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=63)
    backend: str | None = None
    target: Path = Path("/models")
    source: Path | None = None
    cache: Path | None = None
    policy: Policy = Field(default_factory=Policy)
    verify: Verify | None = None

    @property
    def scheme(self) -> str:
        """The scheme of the URI, lower case.

        Raises:
            SchemeRefused: the URI has none, or one that the platform does not allow.
        """
        scheme, sep, _ = self.uri.partition("://")
        scheme = scheme.lower()
        allowed = ", ".join(self.policy.allowed_schemes)
        if not sep or scheme not in self.policy.allowed_schemes:
            raise SchemeRefused(
                "spec.model.source.uri",
                self.uri.partition("?")[0],
                f"scheme {scheme!r} is not allowed here" if sep else "it has no scheme",
                f"Use one of: {allowed}; the platform team sets them in the chart's values "
                "(fetch.allowedSchemes)",
            )
        return scheme


@dataclass(frozen=True)
class Mounts:
    """Where things are mounted; tests put them elsewhere."""

    request: Path = Path("/etc/tidegate/fetch/fetch.json")
    pin: Path = Path("/etc/tidegate/pin/digest")
    credentials: Path = Path("/etc/tidegate/credentials")
    ca: Path = Path("/etc/tidegate/ca/ca.crt")
    golden: Path = Path("/etc/tidegate/golden")
    termination_log: Path = Path("/dev/termination-log")

    @property
    def pinned_address(self) -> Path:
        """Beside the pin: where the pinned bytes stay, if the URI may move on."""
        return self.pin.with_name("address")

    @property
    def tuning(self) -> Path:
        """Partial ModelConfig from the typed tuning."""
        return self.request.with_name("model.pbtxt")

    @property
    def override(self) -> Path:
        """The user's partial ModelConfig, merged last."""
        return self.request.with_name("override.pbtxt")


def read_request(mounts: Mounts) -> FetchRequest:
    """The request.

    Raises:
        ConfigInvalid: the file is missing or not a request.
    """
    try:
        text = mounts.request.read_bytes()
    except OSError as exc:
        raise _no_request(mounts.request, f"cannot be read ({exc.strerror})") from exc
    return _request(text, mounts.request)


def _request(text: bytes, where: Path | str) -> FetchRequest:
    try:
        return FetchRequest.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}"
        raise _no_request(where, problem) from exc


def _no_request(where: Path | str, problem: str) -> ConfigInvalid:
    return ConfigInvalid(
        "fetch.json", where, problem, "The operator writes it; check both images' versions"
    )


def read_request_text(text: str) -> FetchRequest:
    """The request that an argument holds.

    Raises:
        ConfigInvalid: it is not a request.
    """
    return _request(text.encode(), "argument")


def pinned_request(request: FetchRequest, mounts: Mounts) -> FetchRequest:
    """The request, with the address of the pinned bytes in place of one that may have moved on."""
    try:
        address = mounts.pinned_address.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return request
    return request.model_copy(update={"uri": address}) if address else request


def read_pin(mounts: Mounts) -> str | None:
    """The pinned digest as 64 hex characters; None if this is the revision's first fetch.

    Raises:
        ConfigInvalid: the pin is mounted, but is not a digest.
    """
    try:
        text = mounts.pin.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if match := PIN_PATTERN.fullmatch(text):
        return match[1]
    raise ConfigInvalid(
        "pin", mounts.pin, f"it says {text[:80]!r}", "It must be sha256: and 64 hex characters"
    )
