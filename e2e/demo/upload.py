"""Puts the demo's model repositories into an S3 bucket.

``python -m e2e.demo.upload ENDPOINT FOLDER BUCKET/PREFIX`` with the credentials in
``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``.
"""

import argparse
import os
from pathlib import Path

import s3fs


def upload(
    folder: Path, destination: str, *, endpoint: str, access_key: str, secret_key: str
) -> list[str]:
    """Makes the bucket if it is missing and the prefix equal to the folder; the objects' names.

    Args:
        folder: local files.
        destination: ``bucket/prefix``; objects under it that the folder lacks are removed.
        endpoint: URL of the S3 server.
        access_key: of its credentials, the public half.
        secret_key: of its credentials, the secret half.

    Raises:
        OSError: the server cannot be reached or refuses.
    """
    store = s3fs.S3FileSystem(
        key=access_key,
        secret=secret_key,
        client_kwargs={"endpoint_url": endpoint},
        skip_instance_cache=True,
    )
    bucket, _, prefix = destination.strip("/").partition("/")
    if not store.exists(bucket):
        store.mkdir(bucket)
    root = "/".join(part for part in (bucket, prefix) if part)
    wanted = {
        f"{root}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    for name, path in wanted.items():
        store.put_file(str(path), name)
    stale = sorted(set(store.find(root)) - wanted.keys())
    if stale:
        store.rm(stale)
    return sorted(wanted)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("destination", help="bucket/prefix")
    arguments = parser.parse_args()
    names = upload(
        arguments.folder,
        arguments.destination,
        endpoint=arguments.endpoint,
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )
    print("\n".join(f"s3://{name}" for name in names))


if __name__ == "__main__":
    main()
