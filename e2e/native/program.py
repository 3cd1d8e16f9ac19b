"""The real Triton as one program, for what starts ``tritonserver`` by itself."""

import shlex
from pathlib import Path

from e2e.native import parts
from e2e.native.processes import triton_environment


def triton_program(folder: Path) -> Path:
    """Write a script into a folder that is ``tritonserver`` with all that this one needs."""
    install = parts.triton()
    names = ("LD_LIBRARY_PATH", "PATH", "VIRTUAL_ENV")
    environment = triton_environment(install)
    told = " ".join(f"{name}={shlex.quote(environment[name])}" for name in names)
    server, backends, caches = (
        shlex.quote(str(path)) for path in (install.server, install.backends, install.caches)
    )
    script = folder / "tritonserver"
    script.write_text(
        f'#!/bin/sh\nexec env {told} {server} "$@" --backend-directory={backends} '
        f"--cache-directory={caches}\n"
    )
    script.chmod(0o755)
    return script
