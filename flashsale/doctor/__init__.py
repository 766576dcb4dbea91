"""What would break a promise or slow a storm: facts, how they are judged, and the cure."""
