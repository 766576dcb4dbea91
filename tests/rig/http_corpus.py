"""Requests as bytes, by family, each with what the replica's server makes of it.

An outcome is the statuses that come back, and `kept` where the connection then answers another
request, or `closed` where it does not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

OK, CLOSES, BAD = "200 kept", "200 closed", "400 closed"
LARGE, LONG, WIDE, SLOW = "413 closed", "414 closed", "431 closed", "408 closed"
BODY_MAX, HEAD_MAX, TARGET_MAX, HEADERS_MAX = 65_536, 16_384, 8_192, 100


@dataclass(frozen=True)
class Case:
    """One conversation: bytes in the parts in which they are sent, and what comes of it."""

    family: str
    name: str
    parts: tuple[bytes, ...] = field(repr=False)
    outcome: str
    requests: int = 1
    ends: bool = False  # whether the client ends its side after that
    waits: bool = False  # whether it sends the first part, and hears something before the rest

    @property
    def id(self) -> str:
        return f"{self.family}: {self.name}"


def corpus() -> list[Case]:
    """All of them."""
    made = (_plain, _heads, _hosts, _lines, _targets, _lengths, _codings, _chunks, _bodies)
    more = (_sizes, _controls, _connections, _pipelines, _expectations, _noise, _unfinished)
    return [case for family in (*made, *more) for case in family()]


def request(
    *lines: str | bytes,
    target: bytes = b"/get",
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bool = True,
    body: bytes = b"",
) -> bytes:
    """A request that is right but for what is asked for."""
    head = [b"%b %b %b" % (method, target, version)]
    if host:
        head.append(b"Host: sale.example")
    head += [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([*head, b"", b""]) + body


def post(*lines: str, body: bytes = b"", target: bytes = b"/post") -> bytes:
    return request(*lines, method=b"POST", target=target, body=body)


def chunked(body: bytes, *lines: str) -> bytes:
    return post("Transfer-Encoding: chunked", *lines, body=body)


def _all(family: str, outcome: str, named: Iterable[tuple[str, bytes]]) -> Iterator[Case]:
    for name, data in named:
        yield Case(family, name, (data,), outcome)


def _plain() -> Iterator[Case]:
    yield from _all("methods", OK, [("GET", request()), ("HEAD", request(method=b"HEAD"))])
    others = (b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"POST")
    named = [(one.decode(), request("Content-Length: 0", method=one)) for one in others]
    yield from _all("methods not allowed", "405 kept", named)
    unknown = (b"get", b"FOO", b"GETT", b"G", b"", b"GET,", b"G\xcbT", b"GET\x00", b"get\t")
    yield from _all("methods unknown", BAD, [(repr(one), request(method=one)) for one in unknown])
    whole = request()
    cuts = (1, 3, 4, 8, 9, 13, 17, 18, 24, 30, len(whole) - 3, len(whole) - 2, len(whole) - 1)
    for at in cuts:
        yield Case("in two pieces", f"at {at}", (whole[:at], whole[at:]), OK)
    sent = post("Content-Length: 5", body=b"hello")
    for at in (len(sent) - 6, len(sent) - 5, len(sent) - 4, len(sent) - 1):
        yield Case("in two pieces", f"body at {at}", (sent[:at], sent[at:]), OK)
    parts = chunked(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n")
    for back in range(1, 36, 3):
        yield Case("in two pieces", f"chunks at -{back}", (parts[:-back], parts[-back:]), OK)
    fours = tuple(whole[at : at + 4] for at in range(0, len(whole), 4))
    yield Case("in two pieces", "in pieces of four bytes", fours, OK)


def _heads() -> Iterator[Case]:
    good = (
        "X:", "X: ", "X:y", "X:  y  ", "X:\ty\t", "x-y_z.1: y", "!#$%&'*+-.^_`|~: y", "X: \xe9\xff",
        'X: "a, b;c"', "X: a\tb", "X: (){}[]<>@,;:\\/?=", "Authorization: Bearer x", "Cookie: a=b",
        "X: " + "y" * 8_000,
    )  # fmt: skip
    yield from _all("headers", OK, [(line[:20], request(line)) for line in good])
    names = '(),/;<=>?@[\\]{}" \t\xe9'
    broken = [*(f"X{char}Y: z" for char in names), *(f"X{char}: z" for char in " \t")]
    broken += ["X", ": y", "X y", " : y", "\xe9: y"]
    yield from _all("header names", BAD, [(repr(line), request(line)) for line in broken])
    folded = ("X: a\r\n b", "X: a\r\n\tb", "X: a\r\n  \r\n b", "X:\r\n y")
    yield from _all("folded lines", BAD, [(repr(line), request(line)) for line in folded])
    first = request(host=False).replace(b"\r\n\r\n", b"\r\n Host: a\r\n\r\n")
    yield from _all("folded lines", BAD, [("the first line", first)])


def _hosts() -> Iterator[Case]:
    good = ("a", "a:80", "[::1]:80", "127.0.0.1", "A.B-c_d~e", "")
    yield from _all("hosts", OK, [(one, request(f"Host: {one}", host=False)) for one in good])
    bad = ("a b", "a/b", "a@b", "a?b", "a#b", "<a>", "\xe9", 'a"b', "a\\b")
    named = [(repr(one), request(f"Host: {one}", host=False)) for one in bad]
    named += [
        ("none", request(host=False)),
        ("two", request("Host: sale.example")),
        ("two that differ", request("Host: other.example")),
        ("two, one in small letters", request("host: other.example")),
        ("none, target absolute", request(host=False, target=b"http://a/get")),
    ]
    yield from _all("hosts refused", BAD, named)


def _lines() -> Iterator[Case]:
    whole = request("X: y")
    ends = [at for at in range(len(whole)) if whole[at : at + 2] == b"\r\n"]
    for number, at in enumerate(ends):
        bare_lf, bare_cr = whole[:at] + whole[at + 1 :], whole[: at + 1] + whole[at + 2 :]
        doubled = whole[:at] + b"\r" + whole[at:]
        named = [("LF", bare_lf), ("CR", bare_cr + b"\r\n\r\n"), ("CR CR LF", doubled)]
        yield from _all("line ends", BAD, [(f"{what} at {number}", data) for what, data in named])
    yield from _all("line ends", BAD, [("LF alone", whole.replace(b"\r\n", b"\n"))])
    blank = [(f"{n} before", b"\r\n" * n + whole) for n in (1, 2, 5)]
    yield from _all("empty lines", OK, blank)
    versions = (
        b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1", b"HTTP/11", b"HTTP/1.1 ", b"HTTP/1.01",
        b"http/1.1", b"HTTP/ 1.1", b"HTTP /1.1", b"HTTP/x.y", b"HTTP/1,1", b"HTTPS/1.1", b"FTP/1.1",
        b"HTTP/1.1\x00", b"HTTP/+1.1", b"HTTP/-1.1", b"HTTP/1.", b"HTTP/.1", b"1.1",
    )  # fmt: skip
    named = [(repr(one), request(version=one)) for one in versions]
    yield from _all("versions", BAD, named)
    shapes = (
        b"GET /get\r\n\r\n", b"GET\r\n\r\n", b"GET \r\n\r\n", b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /get x HTTP/1.1\r\nHost: x\r\n\r\n", b"GET\t/get\tHTTP/1.1\r\nHost: x\r\n\r\n",
        b" GET /get HTTP/1.1\r\nHost: x\r\n\r\n", b"/get HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nHost: x\r\n\r\n", b"GET /get\tHTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET/get HTTP/1.1\r\nHost: x\r\n\r\n", b"\tGET /get HTTP/1.1\r\nHost: x\r\n\r\n",
    )  # fmt: skip
    yield from _all("request lines", BAD, [(repr(one[:24]), one) for one in shapes])
    # The parser takes several spaces for one, which RFC 9112 (3) allows.
    spaces = [("two spaces", b"GET  /get HTTP/1.1\r\nHost: x\r\n\r\n")]
    yield from _all("request lines with more spaces", OK, spaces)


def _targets() -> Iterator[Case]:
    good = (
        b"/get?a=b", b"/get?", b"/get??", b"/get?a=%20&b=/c", b"/g%65t", b"http://a/get",
        b"HTTP://a:80/get?x", b"https://[::1]/get", b"/get?" + b"a" * 8_000, b"/get?a[]={}|^",
    )  # fmt: skip
    yield from _all("targets", OK, [(repr(one[:24]), request(target=one)) for one in good])
    unknown = (
        b"/", b"//get", b"/get/", b"/GET", b"/../get", b"/%00", b"/%zz", b"/%", b"/%e9", b"/%2e%2e",
        b"/get;x", b"http://a", b"http://a?b", b"http://a/", b"/nowhere/at/all",
    )  # fmt: skip
    named = [(repr(one), request(target=one)) for one in unknown]
    named += [("OPTIONS *", request(target=b"*", method=b"OPTIONS"))]
    yield from _all("targets not found", "404 kept", named)
    bad = (
        b"get", b"*", b"a:80", b"http:///get", b"http://", b"http:/get", b"ftp://a/get", b"/get#a",
        b"http://u@a/get", b"?a", b"\\get", b"/\xc3\xa9", b"//a b", b"http://a b/", b"#", b"://a/",
    )  # fmt: skip
    named = [(repr(one), request(target=one)) for one in bad]
    named += [
        ("CONNECT", request(method=b"CONNECT", target=b"a:80")),
        ("CONNECT to a path", request(method=b"CONNECT")),
    ]
    yield from _all("targets refused", BAD, named)


def _lengths() -> Iterator[Case]:
    good = ("0", "5", "005", "5 ", " 5", "\t5\t")
    named = [(repr(one), post(f"Content-Length: {one}", body=b"hello"[: int(one)])) for one in good]
    yield from _all("lengths", OK, named)
    bad = (
        "", "-1", "+5", "5.0", "5e0", "0x5", "five", "5, 5", "5,5", "5 5", "\xb2", "5;", "5\x00",
        "'5'", "5_0", ",5", "5,", "NaN", "٥".encode().decode("latin-1"), "--5", "1 000",
    )  # fmt: skip
    named = [(repr(one), post(f"Content-Length: {one}", body=b"hello")) for one in bad]
    pairs = (("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("5", ""), ("", "5"), ("5", "5 "))
    for one, two in pairs:
        lines = (f"Content-Length: {one}", f"Content-Length: {two}")
        named.append((f"two: {one!r} {two!r}", post(*lines, body=b"hello")))
    yield from _all("lengths refused", BAD, named)
    too_long = (BODY_MAX + 1, 70_000, 10**9, 10**17, 2**63 - 1)
    named = [(str(one), post(f"Content-Length: {one}")) for one in too_long]
    yield from _all("lengths too large", LARGE, named)
    beyond = [
        (f"{len(one)} digits", post(f"Content-Length: {one}")) for one in ("9" * 20, "9" * 99)
    ]
    yield from _all("lengths beyond 64 bits", BAD, beyond)


def _codings() -> Iterator[Case]:
    end = b"0\r\n\r\n"
    good = ("chunked", "Chunked", "CHUNKED", " chunked ", "\tchunked")
    named = [(repr(one), post(f"Transfer-Encoding: {one}", body=end)) for one in good]
    yield from _all("codings", OK, named)
    bad = (
        "", "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "xchunked",
        "chunked;q=1", "chunke", "chunked,", ",chunked", "x, chunked", "\xa0chunked", "chunked x",
        "trailers", "chunked\x0b", '"chunked"', "compress, chunked",
    )  # fmt: skip
    named = [(repr(one), post(f"Transfer-Encoding: {one}", body=end)) for one in bad]
    twice = ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
    named += [
        ("two", post(*twice, body=end)),
        ("two that differ", post(twice[0], "Transfer-Encoding: gzip", body=end)),
        ("in HTTP/1.0", chunked(end).replace(b"HTTP/1.1", b"HTTP/1.0")),
        ("folded", post("Transfer-Encoding:\r\n chunked", body=end)),
        ("name with a space", post("Transfer-Encoding : chunked", body=end)),
    ]
    yield from _all("codings refused", BAD, named)
    hidden = request(target=b"/hidden")
    for length in ("0", "4", "5", "6", "70000", "x"):
        both = (f"Content-Length: {length}", "Transfer-Encoding: chunked")
        for what, lines in (("before", both), ("after", both[::-1])):
            data = post(*lines, body=end + hidden)
            yield Case("length beside coding", f"{length} {what}", (data,), BAD, requests=2)


def _chunks() -> Iterator[Case]:
    good = (
        b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"0005\r\nhello\r\n0\r\n\r\n",
        b"a\r\n0123456789\r\n0\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n",
        b"5\r\nhello\r\n000\r\n\r\n",
        b"5;a\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
        b'5;a="b"\r\nhello\r\n0\r\n\r\n',
        b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", b"1\r\na\r\n" * 500 + b"0\r\n\r\n",
    )  # fmt: skip
    yield from _all("chunks", OK, [(repr(one[:30]), chunked(one)) for one in good])
    bad = (
        b"", b"g", b"-5", b"+5", b"0x5", b"5 ", b" 5", b"\t5", b"5\t", b"5.0", b"5,", b"5 ;a",
        b"f" * 17, b"1" + b"0" * 16, b"\xb2", b"5\x00", b"'5'", b"h", b"five", b"5\r",
    )  # fmt: skip
    named = [(f"size {one!r}", chunked(one + b"\r\nhello\r\n0\r\n\r\n")) for one in bad]
    shapes = (
        b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n", b"6\r\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello\r\n0\n\n", b"5;a\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX y\r\n\r\n", b"5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: a\x00\r\n\r\n", b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
    )  # fmt: skip
    named += [(repr(one), chunked(one)) for one in shapes]
    yield from _all("chunks refused", BAD, named)


def _bodies() -> Iterator[Case]:
    for size in (1, 100, 4_095, 4_096, 4_097, 65_535, BODY_MAX):
        body = b"x" * size
        yield Case("bodies", f"{size}", (post(f"Content-Length: {size}", body=body),), OK)
        in_chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        yield Case("bodies", f"{size} in a chunk", (chunked(in_chunks),), OK)
        unread = post(f"Content-Length: {size}", body=body, target=b"/unread")
        yield Case("bodies that nobody reads", f"{size}", (unread,), OK)
    for size in (BODY_MAX + 1, 70_000, 300_000):
        in_chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
        yield Case("bodies too large", f"{size} in a chunk", (chunked(in_chunks),), LARGE)
        sent = post(f"Content-Length: {size}", body=b"x" * size)
        yield Case("bodies too large", f"{size}", (sent,), LARGE)
    many = (b"3e8\r\n" + b"x" * 1_000 + b"\r\n") * 70 + b"0\r\n\r\n"
    yield Case("bodies too large", "many chunks", (chunked(many),), LARGE)
    padded = (b"1;" + b"a" * 4_000 + b"\r\nx\r\n") * 200 + b"0\r\n\r\n"
    yield Case("bodies too large", "extensions without end", (chunked(padded),), LARGE)
    trailers = b"0\r\n" + b"X: y\r\n" * 200_000 + b"\r\n"
    yield Case("bodies too large", "trailers without end", (chunked(trailers),), LARGE)


def _sizes() -> Iterator[Case]:
    # Near the limit of the head, the application's own count decides: without colons and spaces.
    many = [f"X{n}: y" for n in range(HEADERS_MAX - 1)]
    yield from _all("many headers", OK, [("as many as may be", request(*many))])
    wide = [
        ("one header", request("X: " + "y" * HEAD_MAX)),
        ("one name", request("X" * HEAD_MAX + ": y")),
        ("one name without end", request("X" * 4 * HEAD_MAX)),
        ("20,000", request("X: " + "y" * 20_000)),
        ("200,000", request("X: " + "y" * 200_000)),
        ("two", request("X: " + "y" * 9_000, "Y: " + "y" * 9_000)),
        ("one more than may be", request(*many, "Z: y")),
        ("1,000", request(*(f"X{n}: y" for n in range(1_000)))),
        ("10,000", request(*(f"X{n}: y" for n in range(10_000)))),
    ]
    yield from _all("heads too large", WIDE, wide)
    long = (TARGET_MAX + 1, 9_000, 20_000, 100_000)
    named = [(f"{n}", request(target=b"/" + b"a" * n)) for n in long]
    named += [("without end", b"GET /" + b"a" * 20_000)]
    yield from _all("targets too long", LONG, named)


def _controls() -> Iterator[Case]:
    others = [byte for byte in (*range(32), 127) if byte not in b"\t\n\r"]
    values = [(f"{byte:#04x}", request(b"X: a%cb" % byte)) for byte in others]
    yield from _all("controls in a value", BAD, values)
    names = [(f"{byte:#04x}", request(b"X%cY: a" % byte)) for byte in others]
    yield from _all("controls in a name", BAD, names)
    targets = [(f"{byte:#04x}", request(target=b"/get%c" % byte)) for byte in (*others, 9)]
    yield from _all("controls in a target", BAD, targets)


def _connections() -> Iterator[Case]:
    kept = ("keep-alive", "Keep-Alive", "x", "", "te", "upgrade")
    named = [(repr(one), request(f"Connection: {one}")) for one in kept]
    yield from _all("connection", OK, named)
    ended = ("close", "Close", "CLOSE", "close, x", "x, close", "keep-alive, close")
    named = [(repr(one), request(f"Connection: {one}")) for one in ended]
    old = request(version=b"HTTP/1.0", host=False)
    named += [
        ("HTTP/1.0", old),
        ("HTTP/1.0 with a host", request(version=b"HTTP/1.0")),
        ("HTTP/1.0 that would stay", request("Connection: keep-alive", version=b"HTTP/1.0")),
        ("upgrade to h2c", request("Upgrade: h2c", "Connection: upgrade")),
        ("upgrade to websocket", request("Upgrade: websocket", "Connection: Upgrade")),
    ]
    yield from _all("connection that closes", CLOSES, named)
    yield Case("half-closed", "after a request", (request(),), CLOSES, ends=True)
    yield Case("half-closed", "after a body", (post("Content-Length: 2", body=b"ab"),), CLOSES,
               ends=True)  # fmt: skip
    yield Case("half-closed", "in a body", (post("Content-Length: 9", body=b"ab"),), BAD, ends=True)
    yield Case("half-closed", "in a head", (request()[:-2],), "closed", ends=True)
    yield Case("half-closed", "before a head", (b"",), "closed", ends=True)


def _pipelines() -> Iterator[Case]:
    sent = post("Content-Length: 5", body=b"hello")
    for number in (2, 3, 16, 17, 100):
        outcome = " ".join(["200"] * number)
        for what, one in (("GET", request()), ("POST", sent), ("chunked", chunked(b"0\r\n\r\n"))):
            name = f"{number} × {what}"
            yield Case("pipelines", name, (one * number,), f"{outcome} kept", requests=number)
    mixed = request() + sent + request(target=b"/nowhere") + request(method=b"HEAD")
    yield Case("pipelines", "mixed", (mixed,), "200 200 404 200 kept", requests=4)
    for what, bad in (("garbage", b"\x00\x01\r\n\r\n"), ("a bad head", request("X"))):
        yield Case("pipelines that break", what, (request() + bad,), "200 400 closed", requests=2)
    after = request("Connection: close") + request(target=b"/hidden")
    yield Case("pipelines that break", "after close", (after,), "200 closed", requests=2)
    surplus = post("Content-Length: 3", body=b"hello")
    yield Case("pipelines that break", "a surplus", (surplus,), "200 400 closed", requests=2)


def _expectations() -> Iterator[Case]:
    asks = ("Expect: 100-continue", "Content-Length: 5")
    yield Case("expect", "and wait", (post(*asks), b"hello"), "100 200 kept", waits=True)
    yield Case("expect", "in other letters", (post(asks[0].upper(), asks[1]), b"hello"),
               "100 200 kept", waits=True)  # fmt: skip
    yield Case("expect", "and do not wait", (post(*asks, body=b"hello"),), OK)
    yield Case("expect", "without a body", (request(asks[0]),), OK)
    yield Case("expect", "what nobody reads", (post(*asks, target=b"/unread"),), CLOSES)
    yield Case("expect", "too much", (post(asks[0], "Content-Length: 70000"),), LARGE)
    others = ("x", "100-continue, x", "200-ok", "")
    named = [(repr(one), request(f"Expect: {one}")) for one in others]
    yield from _all("expect something else", "417 closed", named)


def _noise() -> Iterator[Case]:
    named = [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("JSON", b'{"a": 1}\r\n\r\n'),
        ("zeros", bytes(100)),
        ("0xff", b"\xff" * 100),
        ("every byte", bytes(range(256)) * 4),
        ("SMTP", b"EHLO a\r\nMAIL FROM:<a@b>\r\n"),
        ("PROXY", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + request()),
        ("an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a BOM", b"\xef\xbb\xbf" + request()),
    ]
    yield from _all("noise", BAD, named)


def _unfinished() -> Iterator[Case]:
    whole = request("X: y")
    for at in (1, 5, 12, 16, 22, len(whole) - 2, len(whole) - 1):
        yield Case("heads that stop", f"at {at}", (whole[:at],), SLOW)
    body = post("Content-Length: 9", body=b"abc")
    yield Case("bodies that stop", "with a length", (body,), SLOW)
    for stop in (b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"0\r\n", b"0\r\nX: y\r\n"):
        yield Case("bodies that stop", repr(stop), (chunked(stop),), SLOW)
