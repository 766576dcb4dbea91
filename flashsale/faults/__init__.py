"""Faults on purpose, on a stack of one's own: each knows how to be done, healed and described."""
