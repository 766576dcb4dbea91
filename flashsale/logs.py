"""Logging of the long-running processes: one JSON object a line, on standard error. A command that
borrows a part of theirs tells its results itself, and logs nothing."""

import logging
import sys

import structlog


def silence() -> None:
    """Log nothing in this process."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def configure(process: str) -> None:
    """Log as `process`, from the level info up."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
