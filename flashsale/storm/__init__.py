"""The load: a plan is made, fired, recorded and counted. Knows HTTP alone.

`plan` and `figures` are pure and lie below `attack`, which fires a plan. `crew` lies above it: one
plan fired from several processes or machines. `storm.py` has the phases in their order.
"""
