"""What a Redis or a MySQL says of itself: versions and the settings that policies judge."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flashsale.errors import UnreachableError, UsageError
from flashsale.stack.redis import RedisRole

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RedisFacts:
    """A Redis; `config` is None where it does not let itself be asked."""

    version: str
    role: str  # master or slave, in its own words
    clustered: bool
    config: Mapping[str, str] | None


@dataclass(frozen=True)
class MySQLFacts:
    """A MySQL or MariaDB; `variables` are all global ones, names in lower case."""

    version: str
    charset: str
    variables: Mapping[str, str]


def ask_redis(role: RedisRole, url: str) -> RedisFacts:
    """Facts of the Redis at `url`. Raises UnreachableError or UsageError with the cure."""
    from redis.exceptions import RedisError, ResponseError

    from flashsale.storage import roles

    option = f"--{role}-url"
    try:
        with roles.sync_client(url, timeout_s=_TIMEOUT_S) as client:
            info = client.info()
            try:
                config = client.config_get("*")
            except ResponseError:
                config = None
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    except (RedisError, OSError) as error:
        raise UnreachableError(
            f"no usable {role} Redis at {hidden(url)} ({error}); start it or correct {option}"
        ) from None
    return RedisFacts(
        version=str(info.get("redis_version", "0")),
        role=str(info.get("role", "master")),
        clustered=bool(info.get("cluster_enabled")),
        config=config,
    )


def ask_mysql(url: str) -> MySQLFacts:
    """Facts of the MySQL at `url`. Raises UnreachableError or UsageError with the cure."""
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    from flashsale.storage import mysql

    engine = mysql.engine(url)
    try:
        with engine.connect() as connection:
            version = str(connection.execute(text("SELECT VERSION()")).scalar())
            charset = str(connection.execute(text("SELECT @@character_set_database")).scalar())
            rows = connection.execute(text("SHOW GLOBAL VARIABLES")).all()
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise UnreachableError(
            f"no usable MySQL at {hidden(url)} ({reason}); start it or correct --mysql-url"
        ) from None
    finally:
        engine.dispose()
    return MySQLFacts(version, charset, {str(name).lower(): str(value) for name, value in rows})


def hidden(url: str) -> str:
    """A URL as it may be shown: without its password."""
    return re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", url)
