"""The misbehaving server (range_server_main.cc) as Python tests hold it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode


class RangeServer:
    def __init__(self, program: Path, port: int = 0):
        self._process = subprocess.Popen([str(program), str(port)], stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._process.stdout.close()

    def put(self, name: str, content: bytes, version: int = 1) -> None:
        """A new version is a new ETag and a date that is a minute later."""
        self._control("PUT", "object", name, content, version=version)

    def put_formula(self, name: str, size: int, seed: int = 0, version: int = 1) -> None:
        self._control("POST", "object", name, size=size, seed=seed, version=version)

    def remove(self, name: str) -> None:
        self._control("DELETE", "object", name)

    def behave(self, name: str, **fields) -> None:
        """The fields of Behaviour (range_server.h); none: by the book."""
        self._control("POST", "behave", name, **fields)

    def hold(self, name: str) -> None:
        self._control("POST", "hold", name)

    def release(self, name: str, count: int | None = None) -> None:
        self._control("POST", "release", name, **({} if count is None else {"count": count}))

    def requests(self, name: str | None = None, method: str = "GET") -> list[dict]:
        everything = json.loads(self._control("GET", "log"))
        return [r for r in everything if (name is None or r["path"] == name) and r["method"] == method]

    def body_bytes(self, name: str) -> int:
        return sum(r["body_bytes"] for r in self.requests(name))

    def forget(self) -> None:
        self._control("DELETE", "log")

    def wait_for_requests(self, name: str, count: int, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while len(self.requests(name)) < count:
            assert time.monotonic() < deadline, f"{count} requests for {name} did not come: {self.requests()}"
            time.sleep(0.01)

    def _control(self, method: str, what: str, name: str = "", body: bytes | None = None, **query) -> str:
        url = f"{self.url}control/{what}/{quote(name)}?{urlencode(query, safe=':/')}"
        request = urllib.request.Request(url, data=body if body is not None else b"" if method == "POST" else None,
                                         method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise ValueError(f"{method} {url}: {error.read().decode().strip()}") from None
