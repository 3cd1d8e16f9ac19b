"""Requests with known answers."""

from pydantic import Field

from tidegate.api.block import Block, Duration, ObjectName


class LoadTest(Block):
    """A short load of golden requests on a first revision, before it serves."""

    rate: int = Field(10, ge=1, le=100, description="Requests a second to each pod.")
    duration: Duration = Field("10s", description="How long, at most 2m.")


class GoldenRequests(Block):
    """Requests with known answers, sent to each new pod."""

    config_map_name: ObjectName = Field(description="ConfigMap of this namespace.")
    every: Duration | None = Field(
        None, description="Again on this schedule, at least 10s [only at start]."
    )
    load_test: LoadTest | None = Field(
        None, description="Also load a first revision with them; slo says what is too much [no]."
    )
