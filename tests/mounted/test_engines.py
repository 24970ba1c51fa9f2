"""Several threads answer reads, each for files of its own."""

import json
import threading
from pathlib import Path

import pytest
from support import trees
from support.mounting import in_pages, run, wait_until

MIB = 1 << 20


def engine_threads(mounted) -> set[str]:
    names = [(thread / "comm").read_text().strip() for thread in Path(f"/proc/{mounted.pid}/task").iterdir()]
    return {name for name in names if name.startswith("wh-engine-")}


@pytest.fixture
def files(origin) -> dict[str, bytes]:
    content = trees.real_bytes(24 * MIB)
    made = {f"{i:02}": content[i * MIB : (i + 2) * MIB - i] for i in range(20)}
    for name, bytes_of in made.items():
        (origin.tree / name).write_bytes(bytes_of)
    return made


def read_all_at_once(mounted, files: dict[str, bytes]) -> None:
    wrong = []

    def read(name: str) -> None:
        try:
            if (mounted / name).read_bytes() != files[name]:
                wrong.append(name)
        except OSError as error:
            wrong.append((name, error))

    readers = [threading.Thread(target=read, args=(name,)) for name in files]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_there_are_as_many_as_the_option_says(origin, mount, files):
    mounted = mount(origin.url, engines=5)
    assert engine_threads(mounted) == {f"wh-engine-{i}" for i in range(5)}
    assert mounted.status()["engines"] == 5
    assert "5 engines" in run(mounted.wormhole, "status", mounted.directory).output
    read_all_at_once(mounted, files)


@pytest.mark.parametrize("engines", ["0", "65", "many"])
def test_a_number_that_cannot_be_is_refused(origin, make_mount, engines):
    result = make_mount(origin.url, engines=engines).try_up()
    assert result.code == 2
    assert "from 1 to 64" in result.output


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_what_one_number_of_them_has_cached_another_finds(origin, mount, files, before, after):
    mounted = mount(origin.url, engines=before)
    read_all_at_once(mounted, files)
    mounted.down()
    origin.forget()
    mounted.options["engines"] = after
    mounted.up()
    read_all_at_once(mounted, files)
    assert origin.file_bytes() == 0


def test_with_the_least_memory_readers_of_all_of_them_go_on(origin, mount, files):
    mounted = mount(origin.url, engines=3, memory="16M", hedge="off")  # or a slow part is asked for twice
    read_all_at_once(mounted, files)
    assert origin.sent_once(sum(map(len, files.values())))


def test_a_command_evicts_from_all_of_them(origin, mount, files):
    mounted = mount(origin.url, engines=3, passthrough="off")
    read_all_at_once(mounted, files)
    size = in_pages(*map(len, files.values()))
    wait_until(lambda: mounted.status()["bytes_cached"] == size, "all of it is stored")
    said = run(mounted.wormhole, "evict", "--json", mounted.path)
    assert said.code == 0, said.output
    assert json.loads(said.output)["freed_files"] == len(files)
    assert mounted.status()["bytes_cached"] == 0
    read_all_at_once(mounted, files)
