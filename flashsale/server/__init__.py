"""The ASGI application and the replica process around it."""
