"""Firing a plan: its schedule, the engine, connections, the wire, and what an answer means."""
