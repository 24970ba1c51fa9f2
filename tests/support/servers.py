"""More programs that show a directory, each with a configuration of its own and without privileges: Apache, lighttpd,
Python's http.server, rclone's WebDAV, and s3rver. They do not count as Origin does.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from time import gmtime, strftime
from urllib.parse import quote

from support.origin import WebServer

SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
APACHE = shutil.which("apache2", path=SBIN)
APACHE_MODULES = Path("/usr/lib/apache2/modules")
LIGHTTPD = shutil.which("lighttpd", path=SBIN)
RCLONE = shutil.which("rclone")
NODE = shutil.which("node")
S3RVER = Path(os.environ.get("WORMHOLE_DEPS", "/opt/wormhole-deps")) / "s3rver/node_modules/.bin/s3rver"


def installed(server: str) -> bool:
    return {"apache": APACHE is not None, "lighttpd": LIGHTTPD is not None, "rclone": RCLONE is not None,
            "s3rver": NODE is not None and S3RVER.exists()}.get(server, True)


class PlainServer(WebServer):
    """Answers when its port does."""

    def __init__(self, tree: Path, work: Path, *, address: str = "127.0.0.1", port: int = 0,
                 prefix: tuple[str, ...] = ()):
        super().__init__(tree, work, address, port, "http", prefix)

    def _answers(self) -> bool:
        if self.prefix:  # there is no way to it from here
            look = [*self.prefix, "bash", "-c", f"true </dev/tcp/{self.address}/{self.port}"]
            return subprocess.run(look, stderr=subprocess.DEVNULL).returncode == 0
        try:
            with socket.create_connection((self.address, self.port), timeout=1):
                return True
        except OSError:
            return False


class Apache(PlainServer):
    """`index` is its IndexOptions, None for no index; `webdav` turns mod_dav on; `workers` is how many requests it answers
    at a time."""

    name = "Apache"

    def __init__(self, tree: Path, work: Path, *, index: str | None = "", webdav: bool = False, workers: int = 16,
                 **options):
        if APACHE is None:
            raise FileNotFoundError("apache2 is not installed (tools/setup --test installs it)")
        super().__init__(tree, work, **options)
        modules = ["mpm_event", "authz_core", "dir", "mime"]
        modules += ["autoindex"] if index is not None else []
        modules += ["dav", "dav_fs"] if webdav else []
        lines = [f"LoadModule {m}_module {APACHE_MODULES}/mod_{m}.so" for m in modules]
        lines += [
            f"ServerRoot {work}", f"PidFile {work}/pid", "ServerName localhost", f"Listen {self.address}:{self.port}",
            f"DocumentRoot {tree}", f"ErrorLog {work}/error.log", f"DefaultRuntimeDir {work}", f"Mutex file:{work}",
            # All of one thread, or it takes as long to start as the others take together.
            "StartServers 1", f"ThreadsPerChild {max(8, workers // 6)}", f"MaxRequestWorkers {workers}",
            "TypesConfig /dev/null",
            "DirectoryIndex disabled", f"<Directory {tree}>", "Require all granted",
        ]
        if index is not None:
            lines += ["Options Indexes FollowSymLinks", f"IndexOptions {index}" if index else ""]
        if webdav:
            lines += ["Dav On"]
        lines += ["</Directory>"]
        if webdav:
            lines += [f"DavLockDB {work}/locks"]
        # Root's children would be nobody, who cannot see into temporary directories; Apache refuses to stay root.
        if os.geteuid() == 0:
            lines += [f"LoadModule unixd_module {APACHE_MODULES}/mod_unixd.so"] if self._has_unixd() else []
            lines += ["User www-data", "Group www-data"]
            work.chmod(0o777)
        (work / "apache.conf").write_text("\n".join(lines) + "\n")

    @staticmethod
    def _has_unixd() -> bool:
        return (APACHE_MODULES / "mod_unixd.so").exists()

    def _command(self) -> list[str]:
        return [APACHE, "-f", str(self.work / "apache.conf"), "-DFOREGROUND"]


class Lighttpd(PlainServer):
    name = "lighttpd"

    def __init__(self, tree: Path, work: Path, **options):
        if LIGHTTPD is None:
            raise FileNotFoundError("lighttpd is not installed (tools/setup --test installs it)")
        super().__init__(tree, work, **options)
        (work / "lighttpd.conf").write_text(
            f'server.document-root = "{tree}"\nserver.port = {self.port}\nserver.bind = "{self.address}"\n'
            'server.modules = ("mod_dirlisting")\ndir-listing.activate = "enable"\n')

    def _command(self) -> list[str]:
        return [LIGHTTPD, "-D", "-f", str(self.work / "lighttpd.conf")]


class PythonHttp(PlainServer):
    name = "http.server"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "http.server", str(self.port), "--bind", self.address,
                "--directory", str(self.tree)]


class RcloneWebdav(PlainServer):
    name = "rclone serve webdav"

    def __init__(self, tree: Path, work: Path, **options):
        if RCLONE is None:
            raise FileNotFoundError("rclone is not installed (tools/setup --test installs it)")
        super().__init__(tree, work, **options)

    def _command(self) -> list[str]:
        return [RCLONE, "serve", "webdav", str(self.tree), "--addr", f"{self.address}:{self.port}", "--read-only",
                "--config", str(self.work / "rclone.conf"), "--dir-cache-time", "0s"]


class S3(PlainServer):
    """s3rver with one bucket, which has what is in `tree`. Everybody may read it; S3Gate is stricter."""

    name = "s3rver"
    bucket = "data"
    def __init__(self, tree: Path, work: Path, **options):
        if not installed("s3rver"):
            raise FileNotFoundError("s3rver is not installed (tools/setup --test installs it)")
        super().__init__(tree, work, **options)

    def _command(self) -> list[str]:
        # It makes its continuation tokens with a cipher that OpenSSL has put aside.
        return [NODE, "--openssl-legacy-provider", str(S3RVER), "-d", str(self.work / "s3"), "-a", self.address, "-p", str(self.port), "-s",
                "--no-vhost-buckets", "--configure-bucket", self.bucket]

    def start(self) -> S3:
        super().start()
        files = {path.relative_to(self.tree).as_posix(): path for path in sorted(self.tree.rglob("*"))
                 if path.is_file()}
        self.put({key: path.read_bytes() for key, path in files.items()})
        return self

    def put(self, objects: dict[str, bytes]) -> None:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=10)
        for key, content in objects.items():
            path = f"/{self.bucket}/{quote(key)}"
            # It wants to know who writes, and when, and takes every signature of the fourth version.
            day, time = strftime("%Y%m%d", gmtime()), strftime("%Y%m%dT%H%M%SZ", gmtime())
            connection.request("PUT", path, content, {
                "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": time,
                "Authorization": f"AWS4-HMAC-SHA256 Credential=S3RVER/{day}/us-east-1/s3/aws4_request, "
                                 "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=00"})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
        connection.close()
