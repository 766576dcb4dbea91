"""The load: scenario, plan, wire, attacker, histogram, summary. Knows HTTP alone."""
