from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit


def test_each_s3_server_listens_on_a_loopback_port(s3_conf: dict[str, Any]) -> None:
    address = urlsplit(s3_conf["endpoint_url"])
    assert address.hostname == "127.0.0.1"
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        assert connection.getpeername()[1] == address.port
