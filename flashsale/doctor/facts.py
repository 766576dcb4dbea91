"""What a Redis or a MySQL says of itself: versions and the settings that policies judge."""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError, ResponseError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from flashsale.errors import UnreachableError
from flashsale.stack.redis import RedisRole
from flashsale.storage import mysql, roles
from flashsale.store_urls import CONNECT_TIMEOUT_S, read_mysql_url, read_redis_url


@dataclass(frozen=True)
class RedisFacts:
    """A Redis, or a Valkey; `config` is None where it does not let itself be asked.

    `run_id` is the same for two URLs of one server.
    """

    version: str
    role: str  # master or slave, in its own words
    clustered: bool
    config: Mapping[str, str] | None
    product: str = "Redis"
    run_id: str = ""


@dataclass(frozen=True)
class MySQLFacts:
    """A MySQL or MariaDB; `variables` are all global ones, names in lower case."""

    version: str
    charset: str
    variables: Mapping[str, str]
    database: str = ""


def ask_redis(role: RedisRole, url: str) -> RedisFacts:
    """Facts of the Redis at `url`. Raises UnreachableError or UsageError with the cure."""
    option = f"--{role}-url"
    place = read_redis_url(url, option)
    try:
        with roles.sync_client(url, timeout_s=CONNECT_TIMEOUT_S) as client:
            info = client.info()
            try:
                config = client.config_get("*")
            except ResponseError:
                config = None
    except (RedisError, OSError) as error:
        raise UnreachableError(
            f"no usable {role} Redis at {place} ({error}); start it or correct {option}"
        ) from None
    own_version = info.get("valkey_version")  # beside the Redis version that it is compatible with
    return RedisFacts(
        version=str(own_version or info.get("redis_version", "0")),
        role=str(info.get("role", "master")),
        clustered=bool(info.get("cluster_enabled")),
        config=config,
        product="Valkey" if own_version else "Redis",
        run_id=str(info.get("run_id", "")),
    )


def ask_mysql(url: str) -> MySQLFacts:
    """Facts of the MySQL at `url`. Raises UnreachableError or UsageError with the cure."""
    place = read_mysql_url(url, "--mysql-url")
    engine = mysql.engine(url)
    try:
        with engine.connect() as connection:
            version = str(connection.execute(text("SELECT VERSION()")).scalar())
            charset = str(connection.execute(text("SELECT @@character_set_database")).scalar())
            rows = connection.execute(text("SHOW GLOBAL VARIABLES")).all()
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise UnreachableError(
            f"no usable MySQL at {place} ({reason}); start it or correct --mysql-url"
        ) from None
    finally:
        engine.dispose()
    variables = {str(name).lower(): str(value) for name, value in rows}
    return MySQLFacts(version, charset, variables, place.database)
