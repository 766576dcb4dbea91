"""A plugin of pytest: the library below a process is made of another source, which the environment
names; and the changes of it that its tests have to find."""

import os
from pathlib import Path

from flashsale.faults import shim

SOURCE_VARIABLE = "RIG_SHIM_SOURCE"

MUTATIONS: dict[str, tuple[str, str]] = {
    "nothing is written down": ("if (!control->keeps_undo)", "if (1)"),
    "old bytes are left out": ("        old = length;\n", "        old = 0;\n"),
    "the file's length is left out": ("{offset, old, size}, 3", "{offset, old, 0}, 3"),
    "an offset is one too high": ("{offset, old, size}, 3", "{offset + 1, old, size}, 3"),
    "old bytes are read from the beginning": ("part, offset + done)", "part, done)"),
    "an fsync drops nothing": ("        forget(file, mark, generation);\n", ""),
    "an fsync drops what came while it ran": (
        "forget(file, mark, generation);",
        "forget(file, file->end, file->generation);",
    ),
    "a failing fsync drops what it was for": (
        "errno = control->fsync_error;\n",
        "forget(file, file->end, file->generation); errno = control->fsync_error;\n",
    ),
    "a failing fsync succeeds": (
        "errno = control->fsync_error;\n        return -1;",
        "return 0;",
    ),
    "an fsync does not know of another process": (
        "if (control->keeps_undo && file->undo < 0)",
        "if (0)",
    ),
    "fdatasync passes by": ("{ return synced(fd, SYS_fdatasync); }", "{ return 0; }"),
    "a slow fsync is not": ("nanosleep(&wait, NULL);", ""),
    "half a record is a whole one": (
        "file->end = whole_end(file->undo, head);",
        "struct stat st; fstat(file->undo, &st); file->end = st.st_size;",
    ),
    "a shorter file is not seen": (
        "    remember(file, fd, st.st_size, from, st.st_size - from);\n",
        "",
    ),
    "truncate by name is not seen": ("resized(fd, length), why", "ftruncate_(fd, length), why"),
    "fallocate is not seen": (
        "WRITE(fd, offset, length, syscall(SYS_fallocate, fd, mode, offset, length));",
        "return syscall(SYS_fallocate, fd, mode, offset, length);",
    ),
    "pwritev2 is not seen": (
        "ssize_t pwritev64v2(int fd",
        "static ssize_t pwritev64v2_(int fd",
    ),
    "pwrite is not seen": ("ssize_t pwrite64(int fd", "ssize_t pwrite64_(int fd"),
    "writev is not seen": ("ssize_t writev(int fd", "ssize_t writev_(int fd"),
    "what is written through is taken back": ("& O_DSYNC))", "& 0))"),
    "a removed file keeps its undo file": (
        "    forget_name(AT_FDCWD, path);\n    return",
        "    return",
    ),
    "a file that another takes the name of keeps its undo file": (
        "    forget_name(AT_FDCWD, to);\n",
        "",
    ),
    "every file is watched": ("memcmp(path, (const char *)control->folder, folder) == 0", "1"),
    "no file is watched": ("return length > (ssize_t)folder", "return 0 && length > 0"),
    "a full disk takes everything": ("> st->st_size) {", "> st->st_size && 0) {"),
    "a full disk takes nothing": (
        "control->write_error && offset + (off_t)length > st->st_size",
        "control->write_error",
    ),
    "the clock goes the other way": ("+ control->clock_ns;", "- control->clock_ns;"),
    "every clock is shifted": ("done == 0 && is_of_day &&", "done == 0 && (is_of_day || 1) &&"),
    "gettimeofday is not shifted": ("int gettimeofday(", "int gettimeofday_("),
    "time is not shifted": ("time_t time(time_t *now)", "time_t time_(time_t *now)"),
}
"""What is changed, and into what. Each is a way in which a power cut would take too much or too
little, or a fault would not be made."""


def mutated(source: str, name: str) -> str:
    """The source with this change. Raises ValueError where it does not know the source any more."""
    before, after = MUTATIONS[name]
    if source.count(before) != 1:
        raise ValueError(f"{name}: {before!r} stands {source.count(before)} times in shim.c")
    return source.replace(before, after.replace("ftruncate_(", "(int)syscall(SYS_ftruncate, "))


if path := os.environ.get(SOURCE_VARIABLE):
    shim._SOURCE = Path(path)
