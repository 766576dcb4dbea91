"""Logs stay bounded, and nothing but the oldest text is lost."""

from pathlib import Path

from flashsale.stack.process import roll


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 100)
    assert not roll(log, bytes_max=100, files_max=2)
    assert list(tmp_path.iterdir()) == [log]


def test_a_missing_log_is_no_trouble(tmp_path: Path) -> None:
    assert not roll(tmp_path / "none.log", bytes_max=1, files_max=2)


def test_a_long_log_moves_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("a") as writer:
        writer.write("first\n")
        writer.flush()
        assert roll(log, bytes_max=1, files_max=2)
        writer.write("second\n")
    assert log.read_text() == "second\n"
    assert (tmp_path / "a.log.1").read_text() == "first\n"


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for text in ("one", "two", "three", "four"):
        log.write_text(text)
        roll(log, bytes_max=1, files_max=2)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"a.log": "", "a.log.1": "four", "a.log.2": "three"}
