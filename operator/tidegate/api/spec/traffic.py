"""How requests reach the model."""

from typing import Annotated

from pydantic import Field

from tidegate.api.block import LIST_SET, Block, Duration, LabelValue, ObjectName
from tidegate.api.patterns import DNS_LABEL_PATTERN, HOSTNAME_PATTERN


class ParentRef(Block):
    """A Gateway to attach to."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: (
        Annotated[str, Field(pattern=DNS_LABEL_PATTERN, min_length=1, max_length=63)] | None
    ) = Field(None, description="Its namespace [this one].")
    section_name: ObjectName | None = Field(None, description="One listener of it [all].")


Hostname = Annotated[str, Field(pattern=HOSTNAME_PATTERN, min_length=1, max_length=253)]


class Gateway(Block):
    """Exposure through a Gateway API gateway."""

    parent_refs: tuple[ParentRef, ...] = Field(
        min_length=1, max_length=4, description="Gateways to attach to."
    )
    hostnames: tuple[Hostname, ...] = Field(
        (),
        max_length=8,
        description="Hosts, for HTTP and gRPC alike [the listener's].",
        json_schema_extra=LIST_SET,
    )
    grpc_hostnames: tuple[Hostname, ...] = Field(
        (),
        max_length=8,
        description="Hosts for gRPC only, distinct from hostnames.",
        json_schema_extra=LIST_SET,
    )


class Overload(Block):
    """Refusing early instead of answering late."""

    max_pending: int | None = Field(
        None, ge=1, le=100_000, description="Requests in flight in one pod before 503 [no limit]."
    )
    reserved: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="So many beside, for requests with the header x-tidegate-priority: high, which "
        "take no others [none].",
    )


class Peer(Block):
    """Who may reach the pods: a selector of namespaces, of pods, or both."""

    namespace_labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=8, description="Of namespaces [this namespace]."
    )
    pod_labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=8, description="Of pods [all in those namespaces]."
    )


class Traffic(Block):
    """How requests reach the model."""

    gateway: Gateway | None = Field(None, description="Exposure by a gateway [inside only].")
    timeout: Duration | None = Field(None, description="Of one request at the gateway [none].")
    overload: Overload | None = Field(None, description="Refusing early [never].")
    allow_from: tuple[Peer, ...] = Field(
        (), max_length=16, description="Ingress peers of the NetworkPolicy [everyone]."
    )
