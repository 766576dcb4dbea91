"""The load: a plan is made, fired, recorded and counted. Knows HTTP alone.

workload (what is to be fired), attack (firing it), record (what is written down), figures (what it
amounts to), health (whether the generator can be believed), crew (several processes or machines).
"""
