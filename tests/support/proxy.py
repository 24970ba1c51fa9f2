"""A small HTTP proxy that keeps a log: absolute URLs for http, CONNECT for everything else."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from typing import Self
from urllib.parse import urlsplit

PIECE = 64 * 1024


class _Handler(socketserver.StreamRequestHandler):
    """One request for each connection."""

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode("latin-1").split(" ", 2)
        headers = []
        while (line := self.rfile.readline()) not in (b"\r\n", b"\n", b""):
            headers.append(line)
        self.server.log.append((method, target))
        try:
            if method == "CONNECT":
                self._tunnel(target)
            else:
                self._forward(method, target, headers)
        except OSError:
            pass  # either side may leave at any time

    def _forward(self, method: str, target: str, headers: list[bytes]) -> None:
        url = urlsplit(target)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # Framing ends with the connection: what is in between need not be understood.
        kept = [line for line in headers if not line.lower().startswith((b"connection:", b"proxy-"))]
        head = f"{method} {path} HTTP/1.1\r\n".encode("latin-1") + b"".join(kept) + b"Connection: close\r\n\r\n"
        with socket.create_connection((url.hostname, url.port or 80), timeout=10) as server:
            server.sendall(head)
            while piece := server.recv(PIECE):
                self.connection.sendall(piece)

    def _tunnel(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as server:
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other = {server: self.connection, self.connection: server}
            while True:
                for source in select.select([*other], [], [])[0]:
                    piece = source.recv(PIECE)
                    if not piece:
                        return
                    other[source].sendall(piece)


class Proxy(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1 while its context lasts. `log`: method and target of each request, in order."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.log: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        pass  # a client that left in the middle of its request

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()
