"""Async tests run on asyncio, without a server."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The one event loop that the sale runs on."""
    return "asyncio"
