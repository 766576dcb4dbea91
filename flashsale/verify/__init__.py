"""The judge: a snapshot of what happened, checks over it, a verdict.

Knows the family's keys and tables and the storm's record, and imports nothing that sells.
"""

DRAIN_TIMEOUT_S = 30.0
"""How long the queue may stand still before the judge stops waiting for it."""
