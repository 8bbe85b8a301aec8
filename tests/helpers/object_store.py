"""An S3 server on this machine (moto's), where the tests are told of one by MOTO_SERVER."""

import os
import socket
import subprocess
import time
import urllib.request

import pytest

MOTO = os.environ.get("MOTO_SERVER")  # not whatever is on the PATH: it may be of another environment


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """The URI of a new bucket on moto's server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([MOTO, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    end = time.monotonic() + 100
    while True:
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"), timeout=5
            ).close()
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.2)
    yield f"s3://bucket/folder?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    server.kill()
    server.wait()
