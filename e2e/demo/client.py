"""Sends files to a served Magika, over HTTP and over gRPC, and prints what it says of each.

``python -m e2e.demo.client ADDRESS FILE...``: the address is ``host:port`` of a Service, a gateway
or a sidecar; both protocols share it.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import tritonclient.grpc

DEFAULT_MODEL: Final = "magika"
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Answer:
    """What the model says of one file, and how long it took to say so."""

    file: Path
    label: str
    score: float
    milliseconds: float


def identify_http(
    address: str,
    files: Iterable[Path],
    *,
    model: str = DEFAULT_MODEL,
    headers: dict[str, str] | None = None,
) -> list[Answer]:
    """Asks over HTTP: the request's body is the file, byte for byte.

    Args:
        address: ``host:port``.
        files: each one request, on one connection.
        model: the name that the model is served by.
        headers: more headers, such as ``Host`` for a gateway.

    Raises:
        httpx.HTTPError: no answer, or a status other than 200.
    """
    answers = []
    raw = {
        "Content-Type": "application/octet-stream",
        # Triton's raw form: no JSON header before the tensor's bytes.
        "Inference-Header-Content-Length": "0",
        **(headers or {}),
    }
    with httpx.Client(base_url=f"http://{address}", timeout=TIMEOUT_S, headers=raw) as client:
        for file in files:
            content = file.read_bytes()
            start = time.perf_counter()
            reply = client.post(f"/v2/models/{model}/infer", content=content)
            took_ms = (time.perf_counter() - start) * 1000
            reply.raise_for_status()
            label, score = _raw_outputs(
                reply.content, int(reply.headers["Inference-Header-Content-Length"])
            )
            answers.append(Answer(file, label, score, took_ms))
    return answers


def _raw_outputs(body: bytes, header_length: int) -> tuple[str, float]:
    """Label and score out of Triton's binary answer: a JSON header, then each output's bytes."""
    outputs = {}
    at = header_length
    for output in json.loads(body[:header_length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = body[at : at + size]
        at += size
    # A BYTES tensor has four bytes of length before each element.
    return outputs["label"][4:].decode(), float(np.frombuffer(outputs["score"], "<f4")[0])


def identify_grpc(
    address: str,
    files: Iterable[Path],
    *,
    model: str = DEFAULT_MODEL,
    headers: dict[str, str] | None = None,
) -> list[Answer]:
    """Asks over gRPC with tritonclient; arguments as `identify_http`.

    Raises:
        tritonclient.utils.InferenceServerException: no answer, or a status other than OK.
    """
    answers = []
    with tritonclient.grpc.InferenceServerClient(address) as client:
        for file in files:
            content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
            content.set_data_from_numpy(np.array([[file.read_bytes()]], dtype=object))
            start = time.perf_counter()
            reply = client.infer(model, [content], headers=headers, client_timeout=TIMEOUT_S)
            took_ms = (time.perf_counter() - start) * 1000
            label, score = reply.as_numpy("label"), reply.as_numpy("score")
            answers.append(Answer(file, label.item().decode(), float(score.item()), took_ms))
    return answers


PROTOCOLS: Final[dict[str, Callable[..., list[Answer]]]] = {
    "HTTP": identify_http,
    "gRPC": identify_grpc,
}


def table(answers: dict[str, list[Answer]]) -> str:
    """One row a file: its label, its score, and the milliseconds of each protocol.

    Args:
        answers: those of each protocol, for the same files in the same order. Where the protocols
            disagree on a label the row shows both.
    """
    protocols = list(answers)
    rows = [["file", "label", "score", *(f"{name} ms" for name in protocols)]]
    for same_file in zip(*answers.values(), strict=True):
        labels = list(dict.fromkeys(answer.label for answer in same_file))
        rows.append(
            [
                str(same_file[0].file),
                " / ".join(labels),
                f"{same_file[0].score:.3f}",
                *(f"{answer.milliseconds:.1f}" for answer in same_file),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: list[str]) -> str:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join([*texts, *numbers])

    return "\n".join(
        [line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="host:port")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--host", help="Host (HTTP) and :authority (gRPC) to ask for")
    arguments = parser.parse_args()
    headers = {"host": arguments.host} if arguments.host else None
    answers = {
        name: ask(arguments.address, arguments.files, model=arguments.model, headers=headers)
        for name, ask in PROTOCOLS.items()
    }
    print(table(answers))


if __name__ == "__main__":
    main()
