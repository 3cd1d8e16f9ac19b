"""Triton's ModelConfig as a typed message: read, merge, write ``config.pbtxt``.

The message is built from Triton's own descriptor (`_model_config_descriptor`), for three reasons
that `tritonclient.grpc.model_config_pb2` does not serve: importing it runs its package's
``__init__``, which loads gRPC and numpy (42 MB and 0.3 s, here 17 MB and 0.1 s); its code is
tied to one protobuf runtime; and in Triton's proto3 a field set to its zero value cannot be told
from an absent one, so ``maxBatchSize: 0`` could never override an 8. Here the same descriptor is
read as proto2, where every field knows whether it was set; text and JSON stay the same. It lives in
a pool of its own, so tritonclient may be loaded beside it.

Pure.
"""

import base64
import difflib
import json
import re
import zlib
from typing import Any, Final

from google.protobuf import descriptor_pb2, json_format, message_factory, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from tidegate.resources._model_config_descriptor import DESCRIPTOR

MAX_CONFIG_CHARS: Final = 1 << 20
"""No hand-written configuration comes near; a larger file is no config.pbtxt."""


def triton_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """Triton's own descriptor of model_config.proto, unchanged."""
    file = descriptor_pb2.FileDescriptorProto()
    file.ParseFromString(zlib.decompress(base64.b85decode(DESCRIPTOR)))
    return file


def _message_class() -> Any:
    file = triton_descriptor()
    file.syntax = "proto2"
    pool = DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


ModelConfig: Final[Any] = _message_class()
"""The message class ``inference.ModelConfig``, with explicit presence."""


def parse_pbtxt(text: str, *, where: str) -> Any:
    """A ModelConfig from the text of a config.pbtxt.

    Args:
        text: protobuf text format.
        where: what the reader knows the text by, such as ``model.config.override``.

    Raises:
        ValueError: what is wrong, in which line, and what would be right.
    """
    _check_size(text, where)
    config = ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        at = f"{where}, line {line} column {column}" if line else where
        raise ValueError(f"{at}: {_explain(_without_position(str(error)))}") from None
    except (UnicodeError, RecursionError) as error:
        raise ValueError(f"{where}: no protobuf text ({type(error).__name__})") from None
    return config


def parse_json(text: str, *, where: str) -> Any:
    """A ModelConfig from JSON, with field names as in config.pbtxt or in camelCase.

    Raises:
        ValueError: as `parse_pbtxt`.
    """
    _check_size(text, where)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}, line {error.lineno} column {error.colno}: {error.msg}; "
            "write JSON, or config.pbtxt without outer braces"
        ) from None
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply for a ModelConfig") from None
    if not isinstance(data, dict):
        raise ValueError(f"{where}: a JSON object is wanted, not {type(data).__name__}")
    try:
        return json_format.ParseDict(data, ModelConfig())
    except (json_format.ParseError, RecursionError) as error:
        raise ValueError(f"{where}: {_explain(str(error))}") from None


def to_pbtxt(config: Message) -> str:
    """The text of a config.pbtxt: equal messages give equal text."""
    return text_format.MessageToString(config, as_utf8=True)


def merge(base: Message, overlay: Message) -> None:
    """Writes the overlay's fields over the base's, in place.

    A scalar replaces, also with zero; a message merges field by field; a map merges key by key; a
    list replaces the whole list (two ``instance_group`` would otherwise add up); a member of a
    oneof displaces the others.
    """
    for field, value in overlay.ListFields():
        if _is_map(field):
            target = getattr(base, field.name)
            for key in value:
                if isinstance(value[key], Message):
                    target[key].CopyFrom(value[key])
                else:
                    target[key] = value[key]
        elif field.is_repeated:
            base.ClearField(field.name)
            getattr(base, field.name).extend(value)
        elif isinstance(value, Message):
            target = getattr(base, field.name)
            target.SetInParent()
            merge(target, value)
        else:
            setattr(base, field.name, value)


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def _check_size(text: str, where: str) -> None:
    if len(text) > MAX_CONFIG_CHARS:
        raise ValueError(f"{where}: {len(text)} characters; at most {MAX_CONFIG_CHARS} are read")


def _without_position(message: str) -> str:
    return re.sub(r"^\d+:\d+ : ", "", message)


_NO_FIELD = re.compile(
    r'Message type "inference\.(?P<type>[A-Za-z.]+)" has no field named "(?P<name>[^"]*)"'
)
_NO_VALUE = re.compile(
    r'Enum type "inference\.(?P<type>[A-Za-z.]+)" has no value named (?P<name>[A-Za-z0-9_]+)'
)
_NO_JSON_VALUE = re.compile(
    r"Invalid enum value (?P<name>\S+) for enum type inference\.(?P<type>[A-Za-z.]+)"
)


def _explain(message: str) -> str:
    """Protobuf's message in the user's words, with the nearest right name."""
    if match := _NO_FIELD.search(message):
        known = [f.name for f in _named(match["type"]).fields]
        kind = match["type"]
        return f"{kind} has no field {match['name']!r}; {_nearest(match['name'], known)}"
    if match := _NO_VALUE.search(message) or _NO_JSON_VALUE.search(message):
        known = [v.name for v in _named(match["type"], enum=True).values]
        return f"{match['type']} has no value {match['name']!r}; {_nearest(match['name'], known)}"
    return f"{message.rstrip('.')}; write fields of Triton's ModelConfig as in config.pbtxt"


def _named(name: str, *, enum: bool = False) -> Any:
    pool = ModelConfig.DESCRIPTOR.file.pool
    find = pool.FindEnumTypeByName if enum else pool.FindMessageTypeByName
    return find(f"inference.{name}")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
