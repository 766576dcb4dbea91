"""The judge: a snapshot of what happened, checks over it, a verdict.

Knows the family's keys and tables and the storm's record, and imports nothing that sells.
"""

TAKE_OVER_S = 35.0
"""How long an order may lie with a worker that ended, before another takes it over."""

DRAIN_TIMEOUT_S = 60.0
"""How long the queue may stand still before the judge stops waiting for it: longer than a
take-over, with time for the worker to look and to write."""
