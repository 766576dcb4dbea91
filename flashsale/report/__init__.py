"""A run as a person, a CI server or a browser reads it."""
