"""Pictures: known by their bytes, read from a form strictly, named by us, their owner's alone."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from flashsale.catalog.pictures import PictureRefusal, Pictures, file_in_form, picture_type
from flashsale.errors import Unavailable
from flashsale.settings import PictureSettings

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
FORM = "multipart/form-data; boundary=b"


def part(data: bytes, *head: str, boundary: str = "b") -> bytes:
    lines = head or ('Content-Disposition: form-data; name="file"; filename="../../a.php"',)
    return f"--{boundary}\r\n".encode() + "\r\n".join([*lines, "", ""]).encode() + data + b"\r\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\xd8\xff\xe0\0", "jpg"),
        (PNG, "png"),
        (b"GIF89a...", "gif"),
        (b"GIF87a...", "gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"<?php system($_GET[0]);", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_a_type_is_told_by_the_bytes(data: bytes, kind: str | None) -> None:
    assert picture_type(data) == kind


def test_the_file_of_a_form_is_read_to_the_byte() -> None:
    data = PNG + b"\r\n--c\r\n\r\n--\r\n"
    other = part(b"x", 'Content-Disposition: form-data; name="title"')
    for content_type in (FORM, 'Multipart/Form-Data; charset=utf-8; boundary="b"'):
        for body in (part(data) + b"--b--\r\n", other + part(data) + other + b"--b--"):
            assert file_in_form(content_type, body) == data
    assert (
        file_in_form(FORM, part(b"", "content-disposition:form-data;name=file") + b"--b--") == b""
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", part(PNG) + b"--b--"),
        ("image/png", PNG),
        ("multipart/form-data", part(PNG) + b"--b--"),
        ("multipart/form-data; boundary=" + "b" * 71, part(PNG) + b"--b--"),
        (FORM, b""),
        (FORM, PNG),
        (FORM, part(PNG)),  # cut short
        (FORM, b"preamble\r\n" + part(PNG) + b"--b--"),
        (FORM, part(PNG, 'Content-Disposition: form-data; name="files"') + b"--b--"),
        (FORM, part(PNG, "Content-Type: image/png") + b"--b--"),
        (FORM, part(PNG, f"X: {'x' * 2_000}", 'Content-Disposition: form-data; name="file"')),
        (FORM, b"--b\r\nContent-Disposition: form-data; name=file\r\n--b--"),
    ],
)
def test_what_is_no_form_with_a_file_is_none(content_type: str, body: bytes) -> None:
    assert file_in_form(content_type, body) is None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pictures(folder: Path | str, **given: Any) -> Pictures:
    return Pictures(PictureSettings(**{"folder": str(folder), "free_bytes_min": 0, **given}))


def files(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


@pytest.mark.anyio
async def test_a_picture_is_kept_under_a_name_of_ours_and_removed_by_its_owner(
    tmp_path: Path,
) -> None:
    kept = pictures(tmp_path / "kept")
    name = await kept.keep(7, PNG)
    assert isinstance(name, str)
    assert files(tmp_path) == [f"kept{name}"]
    assert (tmp_path / f"kept{name}").read_bytes() == PNG
    assert (tmp_path / f"kept{name}").stat().st_mode & 0o777 == 0o644
    assert await kept.remove(8, name) is PictureRefusal.NOT_YOURS
    assert await kept.remove(7, f"/imgs{name}") is None
    assert await kept.remove(7, name) is None
    assert files(tmp_path) == []
    assert dict(kept.outcomes) == {"kept": 1, "removed": 2, "refused": 1}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "secret.png", "../secret.png", "/blogs/7/../../secret.png", "/etc/passwd"),
        f"/blogs/7/{'a' * 32}.php",
        f"/blogs/7/{'a' * 32}.png/../../../secret.png",
        f"/blogs/7/{'a' * 32}.png\n",
        f"/blogs/7/{'a' * 32}.png\0",
        f"/blogs/07/{'a' * 32}.png",
        f"/blogs/７/{'a' * 32}.png",
        f"//blogs/7/{'a' * 32}.png",
    ],
)
async def test_no_other_name_reaches_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    kept = pictures(tmp_path / "kept")
    await kept.keep(7, PNG)
    before = files(tmp_path)
    assert await kept.remove(7, name) is PictureRefusal.NOT_YOURS
    assert files(tmp_path) == before


@pytest.mark.anyio
async def test_what_is_no_picture_or_too_much_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await pictures("").keep(7, PNG) is PictureRefusal.NOT_KEPT_HERE
    few = pictures(tmp_path, per_user_max=2)
    assert await few.keep(7, b"<html>") is PictureRefusal.NO_PICTURE
    done = await asyncio.gather(*(few.keep(7, PNG) for _ in range(8)))
    named = [each for each in done if isinstance(each, str)]
    assert files(tmp_path) == sorted(name[1:] for name in named)
    assert len(named) <= 2, "two that came together may make way for each other"
    assert set(done) - set(named) == {PictureRefusal.TOO_MANY}
    assert isinstance(await few.keep(8, PNG), str), "another user has room of their own"
    nearly = shutil.disk_usage(tmp_path)._replace(free=1_000 + len(PNG) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: nearly)
    assert await pictures(tmp_path, free_bytes_min=1_000).keep(9, PNG) is PictureRefusal.NO_ROOM


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="a picture cannot be written"):
        await pictures(tmp_path / "file").keep(7, PNG)
