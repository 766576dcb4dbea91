"""Pictures that users send: checked by what they hold, kept as files with names of ours.

A picture lies at `{folder}/blogs/{user id}/{32 hexadecimal digits}.{type}`, in a folder that holds
nothing else and that no code is run from. Its name says whose it is and what it is, and a name of
any other form reaches no file. What a client calls it, and which type it says it is, counts for
nothing.
"""

import asyncio
import re
import secrets
import shutil
from collections import Counter
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from flashsale.cache.entry import Limit
from flashsale.errors import Unavailable
from flashsale.settings import PictureSettings

_AT_ONCE, _WAITING_MAX, _WAIT_S = 2, 8, 2.0
"""Pictures that are written at a time, and that wait for it; one more is 503."""

_NAME = re.compile(r"(?:/imgs)?/blogs/([1-9][0-9]{0,18})/([0-9a-f]{32}\.(?:jpg|png|gif|webp))")
_FIELD = re.compile(
    rb'content-disposition: *form-data *;(?:.*;)? *name="?file"?(?:;.*)?', re.IGNORECASE
)
_BOUNDARY = re.compile(
    r'multipart/form-data *;(?:.*;)? *boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_HEAD_BYTES_MAX = 1_024
_BETWEEN = b"\r\n\r\n"


class PictureRefusal(Enum):
    """Why a picture was not taken, or not removed."""

    NOT_KEPT_HERE = auto()  # no folder was set
    NO_PICTURE = auto()
    TOO_MANY = auto()
    NO_ROOM = auto()
    NOT_YOURS = auto()


def picture_type(data: bytes) -> str | None:
    """The ending of a name, by the first bytes; None for whatever is no JPEG, PNG, GIF or WebP."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def file_in_form(content_type: str, body: bytes) -> bytes | None:
    """What the field `file` of a multipart form holds (RFC 7578); None where there is none.

    Strict: each part with its head, and the last boundary there.
    """
    found = _BOUNDARY.match(content_type)
    if found is None:
        return None
    boundary = b"--" + (found[1] or found[2]).encode("latin-1")
    first, *parts = (b"\r\n" + body).split(b"\r\n" + boundary)
    if first or not parts or not parts[-1].startswith(b"--"):
        return None
    for part in parts[:-1]:
        head, between, data = part.removeprefix(b"\r\n").partition(_BETWEEN)
        is_head = between and len(head) <= _HEAD_BYTES_MAX
        if is_head and any(_FIELD.fullmatch(line) for line in head.split(b"\r\n")):
            return data
    return None


class Pictures:
    """The pictures of all users in one folder, which the replicas share. A call may raise
    Unavailable."""

    def __init__(self, settings: PictureSettings) -> None:
        self._folder = Path(settings.folder).absolute() if settings.folder else None
        self._most = settings.per_user_max
        self._spared = settings.free_bytes_min
        self._limit = Limit(_AT_ONCE, waiting_max=_WAITING_MAX, wait_s=_WAIT_S)
        self.outcomes: Counter[str] = Counter({"kept": 0, "removed": 0, "refused": 0})

    def __repr__(self) -> str:
        return f"<Pictures {self._folder} {dict(self.outcomes)}>"

    async def keep(self, user_id: int, data: bytes) -> str | PictureRefusal:
        """The name of a new picture, as a page shows it below /imgs."""
        kind = picture_type(data)
        if self._folder is None or kind is None:
            return self._told(PictureRefusal.NOT_KEPT_HERE if kind else PictureRefusal.NO_PICTURE)
        name = f"/blogs/{user_id}/{secrets.token_hex(16)}.{kind}"
        async with self._limit.turn():
            refusal = await asyncio.to_thread(self._write, self._folder, name, data)
        return self._told(refusal) if refusal else self._done("kept", name)

    async def remove(self, user_id: int, name: str) -> PictureRefusal | None:
        """Remove a picture of the user's own; twice is once."""
        found = _NAME.fullmatch(name)
        if self._folder is None or found is None or int(found[1]) != user_id:
            return self._told(PictureRefusal.NOT_YOURS)
        path = self._folder / "blogs" / found[1] / found[2]
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise Unavailable(f"a picture cannot be removed: {error}") from error
        self._done("removed", name)
        return None

    def _write(self, folder: Path, name: str, data: bytes) -> PictureRefusal | None:
        """Aside, then in place at once; out again where it is one too many, so that requests at
        the same time leave no more than there may be."""
        path = folder / name[1:]
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < self._spared + len(data):
                return PictureRefusal.NO_ROOM
            if self._held(path.parent) >= self._most:
                return PictureRefusal.TOO_MANY
            part.write_bytes(data)
            part.chmod(0o644)
            part.rename(path)
            if self._held(path.parent) > self._most:
                path.unlink()
                return PictureRefusal.TOO_MANY
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise Unavailable(f"a picture cannot be written: {error}") from error
        return None

    def _held(self, folder: Path) -> int:
        return sum(1 for path in folder.iterdir() if path.suffix != ".part")

    def _told(self, refusal: PictureRefusal) -> PictureRefusal:
        self.outcomes["refused"] += 1
        return refusal

    def _done(self, what: str, name: str) -> str:
        self.outcomes[what] += 1
        return name
