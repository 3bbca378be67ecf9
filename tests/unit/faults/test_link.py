"""The proxy that breaks on command, between a client and an echo server."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scripts.faults.link import Links


@pytest.fixture
def links() -> Iterator[Links]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo_for_ever, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        links = Links({"echo": lambda: port, "other": lambda: port})
        yield links
        links.close()


def _echo_for_ever(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def connect(links: Links, name: str = "echo") -> socket.socket:
    return socket.create_connection(("127.0.0.1", links.ports[name]), timeout=5)


def said(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(len(text))


def is_over(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_what_is_sent_comes_through(links: Links) -> None:
    with connect(links) as client:
        assert said(client, b"hello") == b"hello"


def test_a_cut_ends_connections_and_refuses_new_ones_until_healed(links: Links) -> None:
    with connect(links) as client, connect(links, "other") as untouched:
        assert said(client, b"a") == b"a"
        links.cut("echo")
        assert is_over(client)
        with pytest.raises(ConnectionRefusedError):
            connect(links)
        assert said(untouched, b"b") == b"b"
    links.heal("echo")
    with connect(links) as client:
        assert said(client, b"c") == b"c"


def test_a_black_hole_holds_what_was_sent_until_healed(links: Links) -> None:
    with connect(links) as client:
        assert said(client, b"a") == b"a"
        links.black_hole("echo")
        client.sendall(b"held")
        with connect(links) as another:
            another.settimeout(0.1)
            another.sendall(b"too")
            with pytest.raises(TimeoutError):
                another.recv(3)
            links.heal("echo")
            assert client.recv(4) == b"held"
            another.settimeout(5)
            assert another.recv(3) == b"too"


def test_a_slow_link_delays_and_heals(links: Links) -> None:
    with connect(links) as client:
        links.slow("echo", latency=0.1, rate=0)
        began = time.monotonic()
        assert said(client, b"x") == b"x"
        assert time.monotonic() - began >= 0.2  # once each way
        links.heal("echo")
        assert said(client, b"y") == b"y"


def test_a_target_that_is_away_ends_the_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    links = Links({"gone": lambda: port})
    try:
        with connect(links, "gone") as client:
            assert is_over(client)
    finally:
        links.close()
