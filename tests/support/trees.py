"""What the tests read: real files of this machine, and names that real people give to files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

SOURCES = ("/usr/share/doc", "/usr/include", "/usr/lib", "/usr/share")

# A few more, which are no UTF-8, are in ODD_BYTES. None begins with a dot: nginx does not list those.
ODD_NAMES = (
    "with space", " leading space", "trailing space ", "two  spaces", "100%", "%41 is not A", "a%2Fb", "a&b", "&amp;",
    "it's", '"quoted"', "a#b", "a?b=c", "a;b", "a+b", "a=b", "a,b", "a:b", "http:", "a@b", "a!b", "a$b", "a*b",
    "(round)", "[square]", "{curly}", "<tag>", "a|b", "back\\slash", "ca^ret", "back`tick", "~tilde", "-dash", "--help",
    "tab\tinside", "Ünïcödé", "日本語", "кириллица", "🌀", "e\u0301 decomposed", "\u00e9 composed", "x" * 255, "é" * 127,
    "Parent Directory", "index.html", "index.htm", "CON", "a..b", "dot.", "name.tar.gz",
)
ODD_BYTES = (b"latin1-\xe9", b"\xff\xfe")


def write_odd_names(directory: Path) -> int:
    """A file under each odd name, which holds that name. Returns how many."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [*map(os.fsencode, ODD_NAMES), *ODD_BYTES]
    for name in names:
        with open(os.path.join(os.fsencode(directory), name), "wb") as file:
            file.write(name)
    return len(names)


def real_files(*, at_most: int = 64 << 20, sources: tuple[str, ...] = SOURCES) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular, readable files of this machine in a fixed order, links left out."""
    for source in sources:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                info = path.lstat()
                if stat.S_ISREG(info.st_mode) and info.st_size <= at_most and os.access(path, os.R_OK):
                    yield path, info


def copy_real_tree(directory: Path, *, files: int, bytes_at_most: int, largest: int = 4 << 20,
                   sources: tuple[str, ...] = SOURCES) -> int:
    """Copies real files under their paths until there are enough. Returns how many. Names with a leading dot, which
    nginx does not list, are left out."""
    count = size = 0
    for path, info in real_files(at_most=largest, sources=sources):
        if any(part.startswith(".") for part in path.parts):
            continue
        if size + info.st_size > bytes_at_most:
            continue
        target = directory / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        os.utime(target, (info.st_mtime, info.st_mtime))
        count += 1
        size += info.st_size
        if count >= files:
            break
    return count


def write_real_file(path: Path, size: int) -> Path:
    """A file of `size` bytes, made of the libraries and programs of this machine; they begin again when they run out,
    one byte further on, so that no block comes twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = rounds = 0
    with open(path, "wb") as out:
        while written < size:
            before = written
            for source, _ in real_files(sources=("/usr/lib", "/usr/bin")):
                data = source.read_bytes()[rounds:][: size - written]
                out.write(data)
                written += len(data)
                if written == size:
                    break
            assert written > before, "this machine has no files to read"
            rounds += 1
    return path


def real_bytes(size: int, skip: int = 0) -> bytes:
    """The same as write_real_file in memory, from byte `skip` on."""
    parts, have = [], 0
    while have < skip + size:
        before = have
        for source, _ in real_files(sources=("/usr/lib", "/usr/bin")):
            parts.append(source.read_bytes())
            have += len(parts[-1])
            if have >= skip + size:
                break
        assert have > before, "this machine has no files to read"
    return b"".join(parts)[skip : skip + size]


_INVERTED = bytes(255 - i for i in range(256))


def other_version(content: bytes) -> bytes:
    """As long, and different in every single byte: any mixture shows."""
    return content.translate(_INVERTED)


def replace(path: Path, content: bytes, *, minutes: int) -> None:
    """Puts new content in place at once. Its time is `minutes` later than the old one's: servers tell versions apart by
    seconds, listings by minutes."""
    mtime = path.stat().st_mtime + 60 * minutes
    new = path.with_name(f".{path.name}.new")  # not listed
    new.write_bytes(content)
    os.utime(new, (mtime, mtime))
    os.replace(new, path)
