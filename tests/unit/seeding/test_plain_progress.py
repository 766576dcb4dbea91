"""Progress where there is no terminal: few lines, and the last one is complete."""

from flashsale.cli.terminal import PlainProgress


def test_a_line_at_the_end_and_one_every_few_seconds() -> None:
    lines: list[str] = []
    now = 0.0
    progress = PlainProgress(lines.append, lambda: now)
    progress.begin("users", 3_000)
    for _ in range(30):
        now += 0.5
        progress.advance(100)
    assert lines == ["users 1,000 of 3,000", "users 2,000 of 3,000", "users 3,000 of 3,000"]


def test_a_quick_stage_takes_one_line_and_notes_stand_between() -> None:
    lines: list[str] = []
    progress = PlainProgress(lines.append, lambda: 0.0)
    progress.begin("shops", 14)
    progress.advance(14)
    progress.note("2 of the sales have ended")
    progress.begin("users", 5)
    progress.advance(4)
    assert lines == ["shops 14 of 14", "2 of the sales have ended"]
