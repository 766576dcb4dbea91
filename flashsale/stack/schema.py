"""The tables of a sale, created where they are missing."""

from flashsale.errors import Indeterminate, Unavailable, UnreachableError


def create_schema(mysql_url: str) -> None:
    """Create every table that is missing. Raises UnreachableError with the cure."""
    from flashsale.storage import mysql, tables

    engine = mysql.engine(mysql_url)
    try:
        tables.create_all(engine)
    except (Unavailable, Indeterminate) as error:
        raise UnreachableError(
            f"cannot create the tables: {error}; give --mysql-url a user who may create them"
        ) from None
    finally:
        engine.dispose()
