"""The emulated wire as the benchmarks use it: tools/wire between two network namespaces, the mount at the near end, the
server at the far end. Files and mounts are those of everybody.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

AT_NEAR = ("nsenter", "--net=/run/netns/wormhole-near")
AT_FAR = ("nsenter", "--net=/run/netns/wormhole-far")
FAR_ADDRESS = "10.99.0.2"
PID_FILE = Path("/run/wormhole-wire.pid")

CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"  # each namespace has its own


class Unavailable(Exception):
    """Something that a measurement needs is not there; says what."""


class Wire:
    """Up for the length of a `with`."""

    def __init__(self, program: Path, *, rate: str = "1G", rtt: str = "50ms", loss: str = "0%",
                 buffers: str = "system", seed: int = 1, congestion: str | None = None):
        """`congestion` is the far end's congestion control, where it is not to be the kernel's own choice."""
        self._program, self._congestion = program, congestion
        self._conditions = ["--rate", rate, "--rtt", rtt, "--loss", loss, "--seed", str(seed)]
        if buffers == "system":
            self._conditions.append("--system-buffers")

    def __enter__(self) -> Wire:
        if PID_FILE.exists() and Path("/proc", PID_FILE.read_text().strip() or "none").exists():
            raise Unavailable(f"a wire is up already: `{self._program} down` ends it")
        try:
            # What it prints is for people who are at a shell.
            subprocess.run([str(self._program), "up", *self._conditions], check=True, stdout=subprocess.DEVNULL)
            if self._congestion:
                self._choose(self._congestion)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        subprocess.run([str(self._program), "down"], check=True)

    @staticmethod
    def _choose(congestion: str) -> None:
        # The kernel loads the module for this, if it has one.
        chosen = subprocess.run([*AT_FAR, "sh", "-c", f"echo {congestion} >{CONGESTION}"], capture_output=True)
        if chosen.returncode != 0:
            raise Unavailable(f"this kernel has no congestion control {congestion} (modprobe tcp_{congestion})")


def round_trip(count: int = 10) -> float:
    """Seconds there and back over the idle wire."""
    try:
        said = subprocess.run([*AT_NEAR, "ping", "-q", "-c", str(count), "-i", "0.2", FAR_ADDRESS], check=True,
                              capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise Unavailable(f"{error.filename} is not installed (tools/setup --bench installs it)") from error
    return float(re.search(r"= [\d.]+/([\d.]+)/", said)[1]) / 1000


