"""The dashboard answers to this machine's names: a page elsewhere cannot reach it by a name that points here."""

import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import served
from frames import search, write_run
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from coatnet_search.cli.own_hosts import OwnHosts

FOREIGN = (
    *("evil.example", "evil.example:8501", "localhost.evil.example", "127.0.0.1.evil.example", "8.8.8.8", "10.0.0.7"),
    *("127.0.0.1@evil.example", "evil.example#localhost", "[::2]", "localhost:8501:1", "localhost/x", "", "a b"),
)
OWN = ("localhost", "LOCALHOST:8501", "localhost.", "127.0.0.1", "127.0.0.1:8501", "127.0.1.1", "[::1]:8501")


def hosts(bound: str) -> OwnHosts:
    async def app(*_given: object) -> None:
        raise AssertionError

    return OwnHosts(app, bound)


def test_on_loopback_its_names_and_those_of_the_machine_are_known() -> None:
    own = hosts("127.0.0.1")

    assert [host for host in (*OWN, socket.gethostname()) if not own.knows(host)] == []
    assert [host for host in FOREIGN if own.knows(host)] == []


def test_a_host_that_was_asked_for_is_known_and_so_are_plain_addresses() -> None:
    own = hosts("gpu-box.example")

    assert [host for host in (*OWN, "gpu-box.example:80", "10.0.0.7", "[fe80::1]:8501") if not own.knows(host)] == []
    assert not any(own.knows(host) for host in ("evil.example", "gpu-box.example.evil.example", "x.gpu-box.example"))


def asked(address: str, *given: str) -> int:
    """The status of an answer to a request with these Host headers."""
    place = urlsplit(address)
    line = http.client.HTTPConnection(str(place.hostname), place.port or 0, timeout=60)
    line.putrequest("GET", "/", skip_host=True)
    for host in given:
        line.putheader("Host", host)
    line.endheaders()
    return line.getresponse().status


def stream(address: str, host: str) -> ClientConnection:
    """What the pages come through, opened from a page of ``host``."""
    place = urlsplit(address)
    with_socket = socket.create_connection((str(place.hostname), place.port or 0), timeout=60)
    return connect(f"ws://{host}/_stcore/stream", sock=with_socket, origin=f"http://{host}", max_size=None)


def test_a_served_page_is_not_given_to_another_host(tmp_path: Path) -> None:
    write_run(tmp_path / "lamps", search(5))

    with served(tmp_path) as address:
        port = urlsplit(address).port
        statuses = {host: asked(address, host) for host in ("evil.example", f"evil.example:{port}", "8.8.8.8", "")}
        known = {host: asked(address, host) for host in (f"127.0.0.1:{port}", "localhost")}
        several = [asked(address), asked(address, "localhost", "evil.example")]
        with pytest.raises(InvalidStatus) as refused:
            stream(address, f"evil.example:{port}")
        with stream(address, f"127.0.0.1:{port}") as page:
            page.send(BackMsg(rerun_script={"query_string": ""}).SerializeToString())
            seen = b""
            while b"lamps" not in seen:
                seen = bytes(page.recv(timeout=120))
        shown = ForwardMsg.FromString(seen)

    assert set(statuses.values()) == {403}
    assert set(known.values()) == {200}
    assert all(status in (400, 403) for status in several)
    assert refused.value.response.status_code == 403
    assert shown.WhichOneof("type") is not None
