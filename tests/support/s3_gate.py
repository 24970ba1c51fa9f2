"""What stands in front of s3rver and checks what that does not: each request must be signed (AWS Signature Version 4, as
the S3 documentation describes it), with the right key. And it makes pages short, so that few keys are many pages."""

from __future__ import annotations

import hmac
import http.client
import re
import threading
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, quote, urlsplit


@dataclass(frozen=True)
class Keys:
    id: str
    secret: str
    session_token: str = ""


def signature(secret: str, method: str, target: str, header: dict[str, str], signed: str, scope: str) -> str:
    """`header`: by names in lower case; `signed`: names with ';' between; `scope`: day/region/s3/aws4_request."""
    parts = urlsplit(target)
    query = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~"))
                   for name, value in parse_qsl(parts.query, keep_blank_values=True))
    canonical = "\n".join([
        method, parts.path, "&".join(f"{name}={value}" for name, value in query),
        *(f"{name}:{' '.join(header[name].split())}" for name in signed.split(";")), "",
        signed, header["x-amz-content-sha256"]])
    text = "\n".join(["AWS4-HMAC-SHA256", header["x-amz-date"], scope, sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return hmac.new(key, text.encode(), sha256).hexdigest()


class S3Gate:
    """In front of the server at `address`:`port`. Without `keys` everybody may enter; they may be changed."""

    def __init__(self, address: str, port: int, keys: Keys | None = None, page: int = 1000, region: str = "us-east-1"):
        self.keys, self.page, self.region = keys, page, region
        self.requests: list[tuple[str, str, int]] = []  # method, target, status
        self.next_pages = threading.Event()  # while it is not set, further pages wait
        self.next_pages.set()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                header = {name.lower(): value for name, value in self.headers.items()}
                if gate.keys and not gate._is_signed(self.command, self.path, header):
                    return self._answer(403, {"Content-Type": "application/xml"}, b"<Error/>")
                if "continuation-token=" in self.path:
                    gate.next_pages.wait(30)
                target = re.sub(r"max-keys=\d+", f"max-keys={gate.page}", self.path)
                server = http.client.HTTPConnection(address, port, timeout=10)
                passed = {name: header[name] for name in ("range", "if-range") if name in header}
                server.request(self.command, target, headers=passed)
                answer = server.getresponse()
                body = answer.read()
                kept = ("content-type", "etag", "last-modified", "content-range", "accept-ranges")
                more = {name: value for name, value in answer.getheaders() if name.lower() in kept}
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self._answer(answer.status, more, body, length)
                server.close()

            do_HEAD = do_GET

            def _answer(self, status: int, header: dict[str, str], body: bytes, length: str | None = None) -> None:
                gate.requests.append((self.command, self.path, status))
                self.send_response(status)
                for name, value in {**header, "Content-Length": length or str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def _is_signed(self, method: str, target: str, header: dict[str, str]) -> bool:
        form = (r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/([^/]+)/s3/aws4_request), ?SignedHeaders=([^,]+), ?"
                r"Signature=([0-9a-f]{64})")
        found = re.fullmatch(form, header.get("authorization", ""))
        if not found:
            return False
        key_id, scope, region, signed, said = found.groups()
        names = signed.split(";")
        must = {"host", "x-amz-date", *([] if not self.keys.session_token else ["x-amz-security-token"])}
        return (key_id == self.keys.id and region == self.region and must <= set(names)
                and header.get("x-amz-security-token", "") == self.keys.session_token
                and said == signature(self.keys.secret, method, target, header, signed, scope))

    def start(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
