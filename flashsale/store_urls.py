"""URLs of the stores: which forms there are, what is wrong with one, and how one may be shown.

A message never repeats a URL that was not understood, since nobody knows where in it the password
stands. What is shown of the others is scheme, host, port and database.
"""

import re
import ssl
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CR
from pymysql.cursors import Cursor
from redis import Redis

from flashsale.errors import UsageError
from flashsale.keys import CLUSTER, SINGLE, WHOLE, Lane, Layout

CONNECT_TIMEOUT_S = 3
"""A store that has not let anybody in by then is away, also one that accepts and stays silent."""

MySQLConnection: TypeAlias = "Connection[Cursor]"

_MYSQL_FORM = "mysql://user:password@host:port/database"
_REDIS_FORM = (
    "redis://user:password@host:port/db, rediss://…, unix:///path/of/socket?db=0 or "
    "redis+sentinel://user:password@host:port,host:port/name/db"
)
_CLUSTER_FORM = (
    "redis+cluster://user:password@host:port,host:port or rediss+cluster://…, of any nodes"
)
_ENCODING = "in a user or password write @ as %40, / as %2F, ? as %3F, # as %23"

_MYSQL_SCHEMES = ("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql")
_MYSQL_PARAMETERS = ("charset", "ssl_ca", "ssl_cert", "ssl_key", "ssl_mode", "unix_socket")
_SSL_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")

_REDIS_TLS = (
    *("ssl_ca_certs", "ssl_cert_reqs"),
    *("ssl_certfile", "ssl_check_hostname", "ssl_keyfile"),
)
_OF_SENTINELS = ("sentinel_user", "sentinel_password")
_REDIS_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "redis": ("db",),
    "unix": ("db",),
    "rediss": ("db", *_REDIS_TLS),
    "redis+sentinel": ("db", *_OF_SENTINELS),
    "rediss+sentinel": ("db", *_OF_SENTINELS, *_REDIS_TLS),
}
_CLUSTERED = "+cluster"
"""What a scheme ends with where the URL is of any node of a Redis Cluster: the ledger is laid out
in lanes there (keys.py), and a client of one server would find an empty one."""
_SENTINEL_PORT = 26379
_PRIMARY_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CHOICES = {
    "charset": ("utf8mb4",),
    "ssl_mode": _SSL_MODES,
    "ssl_cert_reqs": ("required", "optional", "none"),
    "ssl_check_hostname": ("true", "false"),
}
_FILES = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A URL that was understood. `str` of it, and `repr`, tell neither user nor password.

    `database` is a name for MySQL and a number for Redis; `parameters` are what stood after `?`.
    With `sentinels`, host and port are the first one's, and `primary` is what they call the Redis.
    Of a cluster they are those of the first node, and `nodes` are all that were named.
    """

    scheme: str
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    host: str
    port: int
    database: str
    socket: str | None  # a path, in place of host and port
    parameters: Mapping[str, str] = field(repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    primary: str = ""
    nodes: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        if self.sentinels:
            places = ",".join(_place(*sentinel) for sentinel in self.sentinels)
            return f"{self.scheme}://{places}/{self.primary}/{self.database}"
        nodes = ",".join(_place(*node) for node in self.nodes)
        where = nodes or self.socket or _place(self.host, self.port)
        return f"{self.scheme}://{where}/{self.database}"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def layout_of(url: str) -> Layout:
    """How the keys of the ledger at `url` are spelled: its scheme tells. Pure."""
    return CLUSTER if url.partition("://")[0].endswith(_CLUSTERED) else SINGLE


def in_layout(url: str, layout: str) -> str:
    """The same ledger laid out as `layout` says, single or cluster: with the scheme of it. Pure."""
    scheme, separator, rest = url.partition("://")
    if layout != "cluster" or not separator or scheme.endswith(_CLUSTERED):
        return url
    return f"{scheme}{_CLUSTERED}://{rest}"


def of_node(url: str, place: tuple[str, int] | None = None) -> str:
    """The URL of the first node that a cluster's URL names, for a client of one server; or of the
    one at `place`, host and port. Pure."""
    scheme, separator, rest = _without_others(url)[0].partition("://")
    node = f"{scheme.removesuffix(_CLUSTERED)}{separator}{rest}"
    if place is None:
        return node
    parts = urlsplit(node)
    account, at, _ = parts.netloc.rpartition("@")
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    return parts._replace(netloc=f"{account}{at}{host}:{place[1]}").geturl()


def nodes_of(url: str) -> Iterator[str]:
    """The URL of each node that a cluster's URL names, for clients of one server. Pure."""
    _, others = _without_others(url)
    first = of_node(url)
    account, at, _ = urlsplit(first).netloc.rpartition("@")
    yield first
    for other in others:
        yield urlsplit(first)._replace(netloc=f"{account}{at}{other}").geturl()


class LaneClient(Redis):
    """A client of the server that has one lane of a cluster's ledger."""

    lane = WHOLE


def lane_of(ledger: Redis) -> Lane:
    """Which lane a client is of; one of a single server has the whole ledger."""
    return ledger.lane if isinstance(ledger, LaneClient) else WHOLE


def read_ledger_url(url: str, named: str = "") -> StoreUrl:
    """`read_redis_url`, for those who know a ledger of several lanes, too."""
    if layout_of(url) is SINGLE:
        return read_redis_url(url, named)
    nodes = [read_redis_url(node, named) for node in nodes_of(url)]
    read = nodes[0]
    if read.socket or read.sentinels or read.database != "0":
        raise _wrong(
            named, _CLUSTER_FORM, "a cluster has no sockets, no Sentinels, and no database but 0"
        )
    places = tuple((node.host, node.port) for node in nodes)
    return replace(read, scheme=f"{read.scheme}{_CLUSTERED}", nodes=places)


def read_redis_url(url: str, named: str = "") -> StoreUrl:
    """The URL of one Redis server, which redis-py will read in the same way.

    Raises UsageError, in the name of the option or variable that it came from; for a cluster's,
    too, since whoever asks here knows one server alone.
    """
    if layout_of(url) is not SINGLE:
        raise _wrong(named, _REDIS_FORM, "it is a cluster's, which this does not know yet")
    first, others = _without_others(url)
    parts = _split(first, named, _REDIS_FORM, tuple(_REDIS_PARAMETERS))
    parameters = _parameters(parts, named, _REDIS_PARAMETERS[parts.scheme])
    is_socket, by_sentinels = parts.scheme == "unix", parts.scheme.endswith(_BY_SENTINELS)
    path = "" if is_socket else unquote(parts.path).strip("/")
    primary = ""
    if by_sentinels:
        primary, _, path = path.partition("/")
        if not _PRIMARY_NAME.fullmatch(primary):
            raise _wrong(named, _REDIS_FORM, "it does not say what the Sentinels call the primary")
    for number in (path, parameters.get("db", "0")):
        if number and not (number.isascii() and number.isdigit()):
            raise _wrong(named, _REDIS_FORM, "its database is no number")
    if is_socket and parts.path in ("", "/"):
        raise _wrong(named, _REDIS_FORM, "it names no socket")
    hosts = (parts.netloc.rpartition("@")[2], *others) if by_sentinels else ()
    return StoreUrl(
        parts.scheme,
        **_account(parts),
        host=parts.hostname or "localhost",
        port=parts.port or (_SENTINEL_PORT if by_sentinels else 6379),
        database=parameters.get("db", path or "0"),
        socket=unquote(parts.path) if is_socket else None,
        parameters=parameters,
        sentinels=_sentinels(hosts, named),
        primary=primary,
    )


_BY_SENTINELS = "+sentinel"


def _without_others(url: str) -> tuple[str, Sequence[str]]:
    """A URL of Sentinels, or of a cluster's nodes, with the first of them alone, and the others;
    any other as it is."""
    scheme, separator, rest = url.partition("://")
    if not scheme.endswith((_BY_SENTINELS, _CLUSTERED)):
        return url, ()
    account, at, hosts = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    first, *others = hosts.split(",")
    after = rest[len(account) + len(at) + len(hosts) :]
    return f"{scheme}{separator}{account}{at}{first}{after}", others


def _sentinels(hosts: Sequence[str], named: str) -> tuple[tuple[str, int], ...]:
    try:
        parts = [urlsplit(f"//{host}") for host in hosts]
        if all(part.hostname and not part.username for part in parts):
            return tuple((part.hostname or "", part.port or _SENTINEL_PORT) for part in parts)
    except ValueError:
        pass
    raise _wrong(named, _REDIS_FORM, "one of its Sentinels is no host:port")


def server_url(place: StoreUrl, host: str = "", port: int = 0) -> str:
    """One server's plain URL, of the account, database and TLS that `place` names for the Redis
    behind its Sentinels; without a host the first Sentinel's place stands in for it. Pure."""
    tls = {name: value for name, value in place.parameters.items() if name in _REDIS_TLS}
    account = _login(place.user, place.password)
    return _plain(place, account, host or place.host, port or place.port, place.database, tls)


def sentinel_url(place: StoreUrl, host: str, port: int) -> str:
    """The plain URL of one of the Sentinels that `place` names. Pure."""
    told = place.parameters
    tls = {name: value for name, value in told.items() if name in _REDIS_TLS}
    account = _login(*(told.get(name) for name in _OF_SENTINELS))
    return _plain(place, account, host, port, "0", tls)


def _plain(
    place: StoreUrl, account: str, host: str, port: int, database: str, tls: Mapping[str, str]
) -> str:
    scheme = place.scheme.removesuffix(_BY_SENTINELS)
    query = f"?{urlencode(tls)}" if tls else ""
    return f"{scheme}://{account}{_place(host, port)}/{database}{query}"


def _login(user: str | None, password: str | None) -> str:
    if password is None and user is None:
        return ""
    return f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@"


def read_mysql_url(url: str, named: str = "") -> StoreUrl:
    """The URL of a database in MySQL or MariaDB.

    Raises UsageError, in the name of the option or variable that it came from.
    """
    parts = _split(url, named, _MYSQL_FORM, _MYSQL_SCHEMES)
    parameters = _parameters(parts, named, _MYSQL_PARAMETERS)
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise _wrong(named, _MYSQL_FORM, "it names no database")
    read = StoreUrl(
        scheme="mysql",
        **_account(parts),
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        database=database,
        socket=parameters.get("unix_socket"),
        parameters=parameters,
    )
    _ssl_arguments(read, named)  # a certificate that cannot be used is told now
    return read


def at_port(url: str, port: int) -> str:
    """The same store by a port of this machine, where something passes on to it. Pure.

    A URL that names a socket becomes one of that port, with account and database as they are.
    Raises UsageError for one that names Sentinels: one port stands before one server.
    """
    parts = urlsplit(url)
    if parts.scheme.endswith(_BY_SENTINELS):
        raise UsageError("links: a ledger behind Sentinels has none; name its server's own URL")
    rest = [(k, v) for k, v in parse_qsl(parts.query) if k not in ("db", "unix_socket")]
    numbers = [v for k, v in parse_qsl(parts.query) if k == "db"]
    is_socket = parts.scheme == "unix"
    account, at, _ = parts.netloc.rpartition("@")
    return parts._replace(
        scheme="redis" if is_socket else parts.scheme,
        netloc=f"{account}{at}127.0.0.1:{port}",
        path=f"/{(numbers or ['0'])[0]}" if is_socket or numbers else parts.path,
        query=urlencode(rest),
    ).geturl()


def mysql_arguments(url: StoreUrl, *, read_timeout_s: float) -> dict[str, Any]:
    """What `open_mysql` takes for this URL: account, place, TLS, UTC, utf8mb4, time limits.

    Raises UsageError for a certificate that cannot be used.
    """
    account = {"user": url.user, "password": url.password}
    return {
        **{name: value for name, value in account.items() if value is not None},
        "host": url.host,
        "port": url.port,
        "database": url.database,
        "unix_socket": url.socket,
        "charset": "utf8mb4",
        "init_command": "SET time_zone = '+00:00'",
        "read_timeout": read_timeout_s,
        "write_timeout": read_timeout_s,
        **_ssl_arguments(url, ""),
    }


class _Connection(Connection):
    """One that reads no authorities' certificates where none is checked. The driver reads them for
    each connection, which takes longer than the rest of it."""

    def _create_ssl_ctx(self, told: Any) -> ssl.SSLContext:
        return told if isinstance(told, ssl.SSLContext) else _unchecked()


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def open_mysql(**arguments: Any) -> MySQLConnection:
    """A connection, or pymysql.OperationalError within about CONNECT_TIMEOUT_S.

    The driver bounds the handshake by `read_timeout` alone, which is made for queries, so that is
    set only after it.
    """
    patience_s = arguments.pop("read_timeout")
    path = arguments.get("unix_socket")
    if path and not Path(path).is_socket():  # where the driver would leave one open
        raise pymysql.OperationalError(CR.CR_CONNECTION_ERROR, f"there is no socket at {path}")
    limit_s = min(CONNECT_TIMEOUT_S, patience_s)
    arguments |= {"connect_timeout": limit_s, "read_timeout": limit_s}
    try:
        connection = _Connection(**arguments)
    except pymysql.OperationalError as error:
        if error.args[0] != CR.CR_SERVER_LOST:
            raise
        text = f"it did not let us in within {limit_s} s ({error.args[1]})"
        raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, text) from error
    except (pymysql.InternalError, LookupError, ValueError, AssertionError, struct.error) as error:
        raise pymysql.OperationalError(
            CR.CR_CONN_HOST_ERROR, "what answers there is no MySQL"
        ) from error
    connection._read_timeout = patience_s  # type: ignore[attr-defined]  # its stub has none
    return connection


def _split(url: str, named: str, form: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL whose every character stands where it belongs."""
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        raise _wrong(named, form, _ENCODING) from None
    if parts.scheme not in schemes or not url.startswith(f"{parts.scheme}://"):
        raise _wrong(named, form, "it begins otherwise")
    if "," in (parts.hostname or ""):
        raise _wrong(named, form, "it names several hosts")
    if any(letter.isspace() for letter in url):
        raise _wrong(named, form, "it holds white space; write a blank as %20")
    rest = url.partition("://")[2].removeprefix(parts.netloc)
    if parts.netloc.count("@") > 1 or "@" in rest or "#" in rest:
        raise _wrong(named, form, _ENCODING)
    return parts


def _account(parts: SplitResult) -> dict[str, Any]:
    return {
        "user": unquote(parts.username) if parts.username else None,
        "password": None if parts.password is None else unquote(parts.password),
    }


def _parameters(parts: SplitResult, named: str, known: tuple[str, ...]) -> dict[str, str]:
    """What stands after `?`, each once, known and of a value that it can have."""
    found: dict[str, str] = {}
    for given, value in parse_qsl(parts.query, keep_blank_values=True):
        name = given.replace("-", "_")
        if name not in known:
            raise _wrong(named, f"no parameters but {', '.join(known)}", "it has another")
        choices = _CHOICES.get(name)
        if choices and value.lower() not in choices:
            raise _wrong(named, f"{name} to be one of {', '.join(choices)}", "it is something else")
        if name in _FILES and not Path(value).is_file():
            raise _wrong(named, f"{name} to be a file", f"there is none at {value}")
        found[name] = value.lower() if choices else value
    return found


def _ssl_arguments(url: StoreUrl, named: str) -> dict[str, Any]:
    """How to speak TLS to MySQL, in the words of its own client's `--ssl-mode`.

    A CA alone means that the server's certificate is checked against it, as there.
    """
    files = {name: url.parameters.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")}
    usual = "verify_ca" if files["ssl_ca"] else "required" if any(files.values()) else "preferred"
    mode = url.parameters.get("ssl_mode", usual)
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred":  # the driver tries TLS, and goes on without where the server has none
        return {}
    try:
        if mode == "required" and not files["ssl_ca"]:
            context = _unchecked()
        else:
            context = ssl.create_default_context(cafile=files["ssl_ca"])
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # MySQL makes itself a CA that is not
        context.check_hostname = mode == "verify_identity"
        if mode == "required":
            context.verify_mode = ssl.CERT_NONE
        if files["ssl_cert"]:
            context.load_cert_chain(files["ssl_cert"], files["ssl_key"])
    except (OSError, ValueError) as error:  # ssl's own among them
        what = ", ".join(name for name, value in files.items() if value)
        raise _wrong(named, f"usable PEM files in {what}", f"{error}") from error
    return {"ssl": context}


def _wrong(named: str, expected: str, found: str) -> UsageError:
    told = f"expected {expected}; {found}"
    return UsageError(f"{named}: {told}" if named else told)


def mysql_answers(url: str, timeout_s: float) -> bool:
    """Whether the user of `url` can log in and ask."""
    arguments = mysql_arguments(read_mysql_url(url), read_timeout_s=timeout_s)
    try:
        connection = open_mysql(**arguments)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (pymysql.MySQLError, OSError):
        return False
    return True
