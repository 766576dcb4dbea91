"""Tests without a server. Async ones run on asyncio."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The one event loop that the sale runs on."""
    return "asyncio"
