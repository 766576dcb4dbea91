"""Storming and judging without a command line. Whoever calls brings a `Teller`."""
