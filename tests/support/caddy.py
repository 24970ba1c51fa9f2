"""Caddy as the web server that a mount reads from: HTTP/1.1, HTTP/2 and HTTP/3 over TLS on one address and port, without
an admin interface, and with everything it writes in its own directory.

It counts as Origin does. `connection` of a request is the client's port. It does not tell what it is answering at the
moment: requests() waits until its log is quiet, and misses an answer that takes longer than that.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

from support.origin import Certificates, Request, WebServer

CADDY = shutil.which("caddy")


class CaddyOrigin(WebServer):
    name = "Caddy"
    end_signal = signal.SIGQUIT  # SIGTERM waits for what is being answered

    def __init__(self, tree: Path, work: Path, certificates: Certificates, *, address: str = "127.0.0.1",
                 port: int = 0, protocols: tuple[str, ...] = ("h1", "h2", "h3"), prefix: tuple[str, ...] = ()):
        if CADDY is None:
            raise FileNotFoundError("caddy is not installed (tools/setup --test installs it)")
        super().__init__(tree, work, address, port, "https", prefix)
        (work / "caddy.json").write_text(json.dumps(self._config(certificates, protocols), indent=2))

    def _config(self, certificates: Certificates, protocols: tuple[str, ...]) -> dict:
        return {
            "admin": {"disabled": True, "config": {"persist": False}},
            "logging": {"logs": {
                "default": {"level": "INFO", "exclude": ["http.log.access"]},
                "access": {"include": ["http.log.access.counted"], "encoder": {"format": "json"},
                           "writer": {"output": "file", "filename": str(self._log), "roll": False}},
            }},
            "apps": {
                "http": {"servers": {"main": {
                    "listen": [f"{self.address}:{self.port}"],
                    "protocols": list(protocols),
                    "automatic_https": {"disable": True},
                    # A client that asks for an address names no server.
                    "tls_connection_policies": [{"default_sni": "localhost"}],
                    "logs": {"default_logger_name": "counted"},
                    "routes": [{"handle": [{
                        "handler": "file_server", "root": str(self.tree), "browse": {},
                        # A directory is listed, also when it has an index.html.
                        "index_names": [".no-index"],
                    }]}],
                }}},
                "tls": {"certificates": {"load_files": [
                    {"certificate": str(certificates.certificate), "key": str(certificates.key)}]}},
            },
        }

    def _command(self) -> list[str]:
        return [CADDY, "run", "--config", str(self.work / "caddy.json")]

    def _environment(self) -> dict[str, str]:
        home = str(self.work)
        return {**os.environ, "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}

    def _answers(self) -> bool:
        return "serving initial configuration" in self._complaints()

    def _settle(self, quiet: float = 0.4, limit: float = 10) -> None:
        super()._settle(quiet, limit)

    def _request(self, line: bytes) -> Request:
        entry = json.loads(line)
        asked = entry["request"]

        def header(name: str) -> str:
            return ", ".join(asked["headers"].get(name, []))

        return Request(method=asked["method"], path=asked["uri"], status=entry["status"], body_bytes=entry["size"],
                       range=header("Range"), if_range=header("If-Range"), protocol=asked["proto"],
                       connection=int(asked["remote_port"]), time=entry["ts"], seconds=entry["duration"])
