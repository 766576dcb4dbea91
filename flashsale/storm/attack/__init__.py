"""Firing a plan: attackers, lanes, the wire, and what an answer means."""
