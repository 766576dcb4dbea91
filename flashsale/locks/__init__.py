"""Locks on the cache Redis: the workers' in batches, and those of asyncio tasks."""
