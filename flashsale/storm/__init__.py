"""The load, by HTTP alone: `plan` and `figures` below `attack` below `crew` below `storm.py`."""
