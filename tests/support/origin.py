"""nginx as the web server that a mount reads from: own configuration, own directory, own ports, no privileges needed.
Caddy is in caddy.py.

It counts for the tests: every request it answered is in its access log, with the bytes of the body that it sent.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

CONFIG = """
daemon off;
worker_processes {workers};
{user}
pid {work}/nginx.pid;
error_log {work}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  log_format counted escape=json '{{"time":$msec,"method":"$request_method","path":"$request_uri","status":$status,'
    '"body_bytes":$body_bytes_sent,"range":"$http_range","if_range":"$http_if_range",'
    '"protocol":"$server_protocol","connection":$connection,"seconds":$request_time,'
    '"client":"$remote_addr","authorization":"$http_authorization"}}';
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  access_log {work}/access.log counted;
  types {{ text/html html; text/plain txt; application/json json; }}
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 60;
  # A directory is listed, also when it has an index.html.
  index .no-index;
  server {{
    {listen}
    root {tree};
    autoindex on;
    autoindex_exact_size on;
    {directives}
  }}
  server {{
    listen unix:{work}/status;
    access_log off;
    location / {{ stub_status; }}
  }}
}}
"""


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # as sent, percent-encoded
    status: int
    body_bytes: int
    range: str
    if_range: str
    protocol: str
    connection: int
    time: float  # of its end
    seconds: float
    # These nginx alone tells.
    client: str = ""  # the address it came from
    authorization: str = ""


def shared_bytes(requests: Iterable[tuple[str, str]]) -> int:
    """Of requests, each a path and a Range header: the bytes of ranges that lie inside of another one. The rear of a slow
    part is asked of another connection, and the first may have sent it by then."""
    ranges = set()
    for path, header in requests:
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", header):
            ranges.add((path, int(found[1]), int(found[2])))
    return sum(last + 1 - first for path, first, last in ranges
               if any(path == p and f <= first and last <= l and (f, l) != (first, last) for p, f, l in ranges))


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def nginx_version() -> tuple[int, ...]:
    text = subprocess.run([NGINX, "-v"], capture_output=True, text=True).stderr
    return tuple(int(n) for n in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", text).groups())


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of our own and a server's certificate that it signed for localhost."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def create(cls, directory: Path, address: str = "127.0.0.1") -> Certificates:
        directory.mkdir(parents=True, exist_ok=True)
        made = cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")
        ca_key, request, extensions = directory / "ca.key", directory / "server.csr", directory / "server.ext"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        extensions.write_text(f"subjectAltName=DNS:localhost,IP:{address}\nbasicConstraints=CA:FALSE\n")

        def openssl(*arguments):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

        openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", made.authority, "-days", 30,
                "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                "-subj", "/CN=wormhole test authority")
        openssl("req", "-new", *curve, "-keyout", made.key, "-out", request, "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", request, "-CA", made.authority, "-CAkey", ca_key, "-CAcreateserial",
                "-out", made.certificate, "-days", 30, "-extfile", extensions)
        return made


class WebServer:
    """A program that shows `tree`. The tree may change while it runs."""

    name: str  # what it is called in messages
    end_signal = signal.SIGTERM  # ends it at once

    def __init__(self, tree: Path, work: Path, address: str, port: int, scheme: str, prefix: tuple[str, ...]):
        """`prefix` is a command that runs the server (nsenter, say)."""
        self.tree, self.work = tree, work
        self.address, self.port, self.scheme = address, port or free_port(), scheme
        self.prefix = prefix
        self._process: subprocess.Popen | None = None
        self._paused = False
        self._skip = 0  # bytes of the access log that are forgotten
        tree.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        self._log.touch()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}:{self.port}/"

    @property
    def _log(self) -> Path:
        return self.work / "access.log"

    # --- what a server has of its own ---

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str] | None:
        return None

    def _answers(self) -> bool:
        raise NotImplementedError

    def _busy(self) -> bool:
        """Whether something is being answered now, as far as the server tells."""
        return False

    def _complaints(self) -> str:
        return (self.work / "output").read_text(errors="replace")

    def _request(self, line: bytes) -> Request:
        """A line of the access log."""
        raise NotImplementedError

    # --- running ---

    def start(self) -> Self:
        assert self._process is None
        with open(self.work / "output", "wb") as output:
            # A session of its own: the whole group can be stopped and continued.
            self._process = subprocess.Popen([*self.prefix, *self._command()], stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, start_new_session=True, env=self._environment())
        try:
            deadline = time.monotonic() + 10
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} does not start:\n{self._complaints()}")
                time.sleep(0.01)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends it at once: connections under way are cut, new ones are refused."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.end_signal)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Turns it into a black hole: connections are accepted (by the kernel), nothing is answered."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGCONT)
        self._paused = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    # --- counting ---

    def requests(self, everything: bool = False) -> list[Request]:
        """What it answered since the last forget(), once all answers under way are finished and logged. Without the
        look whether there is a manifest, which every mount begins with, where there is none; unless `everything` is wanted."""
        self._settle()
        with open(self._log, "rb") as log:
            log.seek(self._skip)
            all_of_them = [self._request(line) for line in log]
        return [r for r in all_of_them if everything or not (r.path.endswith("/.wormhole/manifest") and r.status >= 400)]

    def body_bytes(self, path: str | None = None) -> int:
        """The bytes of bodies that it sent; only those of `path` (as sent) if one is given."""
        return sum(r.body_bytes for r in self.requests(everything=True) if path is None or r.path == path)

    def file_bytes(self) -> int:
        """The bytes of bodies that were no listings."""
        return sum(r.body_bytes for r in self.requests() if not r.path.endswith("/"))

    def sent_once(self, size: int) -> bool:
        """Whether `size` bytes of files were sent, and besides only what second attempts at slow parts may cost, and
        never as much as half of it: 5 % and 1 MiB where it is asked for again (net/hedging.h), and what was shared. On a
        busy machine any part can be slow. If not, what was sent is printed."""
        twice = shared_bytes((r.path, r.range) for r in self.requests())
        if size <= self.file_bytes() <= size + min(size // 20 + (1 << 20) + twice, size // 2):
            return True
        print(f"{self.file_bytes()} bytes of files instead of {size}:", *self.requests(), sep="\n  ")
        return False

    def forget(self) -> None:
        """From now on it counts from zero."""
        self._settle()
        self._skip = self._log.stat().st_size

    def _settle(self, quiet: float = 0.15, limit: float = 10) -> None:
        """Waits until nothing is being answered and the log has not grown for `quiet` seconds."""
        end = time.monotonic() + limit
        size, since = -1, time.monotonic()
        while time.monotonic() < end:
            now = self._log.stat().st_size
            if now != size or self._busy():
                size, since = now, time.monotonic()
            elif time.monotonic() - since >= quiet:
                return
            time.sleep(0.02)


class Origin(WebServer):
    """nginx."""

    name = "nginx"

    def __init__(self, tree: Path, work: Path, *, certificates: Certificates | None = None, directives: str = "",
                 address: str = "127.0.0.1", port: int = 0, workers: int = 2, prefix: tuple[str, ...] = ()):
        """`directives` stand in the server block."""
        if NGINX is None:
            raise FileNotFoundError("nginx is not installed (tools/setup --test installs it)")
        super().__init__(tree, work, address, port, "https" if certificates else "http", prefix)
        (work / "nginx.conf").write_text(CONFIG.format(
            # Workers of root's nginx would be nobody, who cannot see into temporary directories.
            user="user root;" if os.geteuid() == 0 else "",
            work=work, tree=tree, workers=workers, directives=directives,
            listen=self._listen(certificates)))

    def _listen(self, certificates: Certificates | None) -> str:
        listen = f"listen {self.address}:{self.port}"
        if certificates is None:
            return f"{listen};"
        keys = f"ssl_certificate {certificates.certificate}; ssl_certificate_key {certificates.key};"
        if nginx_version() >= (1, 25, 1):
            return f"{listen} ssl; http2 on; {keys}"
        return f"{listen} ssl http2; {keys}"

    def _command(self) -> list[str]:
        return [NGINX, "-p", str(self.work), "-e", str(self.work / "error.log"), "-c", str(self.work / "nginx.conf")]

    def stop(self) -> None:
        super().stop()
        (self.work / "status").unlink(missing_ok=True)

    def _complaints(self) -> str:
        error_log = self.work / "error.log"
        return super()._complaints() + (error_log.read_text(errors="replace") if error_log.exists() else "")

    def _request(self, line: bytes) -> Request:
        return Request(**json.loads(line))

    def _busy(self) -> bool:
        if self._process is None or self._paused:
            return False
        # One that does not answer this question now (it waits for the disk to take its log, say) is busy. The count has
        # this very question in it.
        status = self._status()
        return status is None or int(re.search(r"Writing: (\d+)", status)[1]) > 1

    def _answers(self) -> bool:
        return self._status() is not None

    def _status(self) -> str | None:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(self.work / "status"))
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
                return answer.decode()
        except OSError:
            return None
