"""Who does what when, drawn from a scenario and its seed before anything is sent. Pure."""
