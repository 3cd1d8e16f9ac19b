"""What the sidecar itself answers, adds to answers, and writes of failed ones. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.resources.sidecar import RETRY_AFTER_S


def headers_to_add(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Headers of an answer, in place of those of the same name."""
    return [
        {
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for key, value in values.items()
    ]


MESSAGE_BYTES: Final = 512
"""Of an error's text that reaches the log."""
_MESSAGE_METADATA: Final = "tidegate"
ERROR_MESSAGE: Final[dict[str, Any]] = {
    # Triton says in the body of an error what is wrong. Envoy's log has no field for a body, so
    # that of an error is read on its way; answers that are none pass untouched. A 503 of Triton's
    # (its queue is full, or a request waited too long) says when to come back, too.
    "name": "envoy.filters.http.lua",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {
            "inline_string": f"""function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status"))
  if status == nil or status < 400 then
    return
  end
  if status == 503 and not headers:get("retry-after") then
    headers:add("retry-after", "{RETRY_AFTER_S}")
  end
  local length = tonumber(headers:get("content-length") or "")
  if length == nil or length > {MESSAGE_BYTES * 32} then
    return
  end
  local body = handle:body()
  if body ~= nil then
    local text = body:getBytes(0, math.min(body:length(), {MESSAGE_BYTES}))
    handle:streamInfo():dynamicMetadata():set("{_MESSAGE_METADATA}", "message", text)
  end
end
"""
        },
    },
}
_OVERLOADED: Final = (
    "as many requests are in flight as this pod takes (traffic.overload.maxPending); try again"
)


def overload_reply(extra: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
    """What a request beyond the limit of its cluster is answered (flag UO)."""
    return {
        "filter": {
            "and_filter": {
                "filters": [{"response_flag_filter": {"flags": ["UO"]}}, *extra],
            }
        }
        if extra
        else {"response_flag_filter": {"flags": ["UO"]}},
        "body": {"inline_string": _OVERLOADED},
        "headers_to_add": headers_to_add(headers),
    }


_IS_GRPC: Final[dict[str, Any]] = {
    "header_filter": {
        "header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    }
}
LOCAL_REPLIES: Final[dict[str, Any]] = {
    "mappers": [
        # The first that fits. Envoy's own status would be UNAVAILABLE; the second header is what
        # gRPC's own retries read.
        overload_reply(
            [_IS_GRPC],
            {
                "grpc-status": "8",
                "retry-after": f"{RETRY_AFTER_S}",
                "grpc-retry-pushback-ms": f"{RETRY_AFTER_S * 1000}",
            },
        ),
        # The shape of Triton's own errors.
        overload_reply([], {"retry-after": f"{RETRY_AFTER_S}"})
        | {"body_format_override": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}},
    ]
}
FAILURE_LOG: Final[dict[str, Any]] = {
    "name": "envoy.access_loggers.stdout",
    # Statuses from 400, gRPC statuses other than OK, and whatever Envoy flags (a client that
    # left, a broken connection). Successes cost nothing.
    "filter": {
        "or_filter": {
            "filters": [
                {
                    "status_code_filter": {
                        "comparison": {
                            "op": "GE",
                            "value": {"default_value": 400, "runtime_key": "log.least_status"},
                        }
                    }
                },
                {"response_flag_filter": {}},
                {
                    "and_filter": {
                        "filters": [
                            {
                                "header_filter": {
                                    "header": {
                                        "name": "content-type",
                                        "string_match": {"prefix": "application/grpc"},
                                    }
                                }
                            },
                            {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}},
                        ]
                    }
                },
            ]
        }
    },
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {
            "json_format": {
                "time": "%START_TIME%",
                "id": "%REQ(X-REQUEST-ID):128%",
                "class": "%UPSTREAM_CLUSTER_RAW%",
                "method": "%REQ(:METHOD)%",
                "path": "%PATH(NQ):256%",
                "code": "%RESPONSE_CODE%",
                "grpc": "%GRPC_STATUS%",
                "message": f"%DYNAMIC_METADATA({_MESSAGE_METADATA}:message)%",
                "grpc_message": f"%TRAILER(GRPC-MESSAGE):{MESSAGE_BYTES}%",
                "grpc_error": f"%RESP(GRPC-MESSAGE):{MESSAGE_BYTES}%",
                "duration_ms": "%DURATION%",
                "flags": "%RESPONSE_FLAGS%",
                "detail": "%RESPONSE_CODE_DETAILS%",
                "bytes_in": "%BYTES_RECEIVED%",
                "bytes_out": "%BYTES_SENT%",
            },
            "omit_empty_values": True,
        },
    },
}
