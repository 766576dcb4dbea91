"""The replica's HTTP/1.1 server: one thread, an asyncio protocol, any plain ASGI 3 application."""
