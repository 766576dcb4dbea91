"""What is asked for: a scenario's tables, its thresholds, the target, and how answers are read."""
