"""The model of the tests' databases is made once for as long as what it is made of is the same."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from migrated_model import MADE_OF, cache_folder, hash_all, make_key, provide, sources
from support import PROJECT


class Maker:
    """Makes models, each of which says which it is."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, home: Path) -> None:
        home.mkdir()
        self.made += 1
        (home / "number").write_text(str(self.made))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.is_dir()]


def test_a_later_run_has_what_an_earlier_one_made(cache: Path, tmp_path: Path) -> None:
    make = Maker()
    for run in ("first", "second"):
        for _ in range(2):
            provide(tmp_path / run, cache, "key", make)
        assert (tmp_path / run / "number").read_text() == "1"


def test_the_newest_alone_is_kept(cache: Path, tmp_path: Path) -> None:
    make = Maker()
    for key in ("old", "new", "old"):
        provide(tmp_path / f"{key} {make.made}", cache, key, make)
        assert kept(cache) == [key]
    assert make.made == 3


def test_without_a_cache_each_run_makes_its_own_once(tmp_path: Path) -> None:
    make = Maker()
    for run in ("first", "first", "second"):
        provide(tmp_path / run, None, "key", make)
    assert make.made == 2


def test_one_of_several_that_begin_at_once_makes_it(cache: Path, tmp_path: Path) -> None:
    make, all_are_there = Maker(), Barrier(8)

    def begin(number: int) -> str:
        home = tmp_path / f"run {number % 4}"
        all_are_there.wait()
        provide(home, cache, "key", make)
        return (home / "number").read_text()

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(begin, range(8))] == ["1"] * 8
    assert kept(cache) == ["key"]


def test_what_was_not_finished_is_not_taken_for_whole(cache: Path, tmp_path: Path) -> None:
    def fail(home: Path) -> None:
        (home / "half").mkdir(parents=True)
        raise ChildProcessError

    make = Maker()
    for kept_in in (cache, None):
        with pytest.raises(ChildProcessError):
            provide(tmp_path / "next", kept_in, "key", fail)
    # As of a run that was killed while it copied.
    (cache / "key.new" / "half").mkdir(parents=True)
    provide(tmp_path / "next", cache, "key", make)
    provide(tmp_path / "one more", cache, "key", make)
    for run in ("next", "one more"):
        assert [path.name for path in (tmp_path / run).iterdir()] == ["number"]


def test_the_key_is_another_when_a_migration_changes_comes_or_is_renamed(tmp_path: Path) -> None:
    def now() -> str:
        return hash_all(sources(tmp_path), ["1.0"])

    keys = [now()]
    (tmp_path / "mailroom_0001.py").write_text("ID = 1")
    keys.append(now())
    assert now() == keys[-1]
    (tmp_path / "mailroom_0001.py").write_text("ID = 2")
    keys.append(now())
    (tmp_path / "mailroom_0001.py").rename(tmp_path / "mailroom_0002.py")
    keys += [now(), hash_all(sources(tmp_path), ["1.1"])]
    assert len({*keys}) == len(keys)
    assert make_key() == make_key()


def test_all_that_it_is_made_of_is_there() -> None:
    for name in MADE_OF:
        assert next(iter(sources(PROJECT / name))).is_file(), name


def test_nothing_is_kept_where_pytest_keeps_nothing(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pytestconfig, "cache", raising=False)
    assert cache_folder(pytestconfig) is None
