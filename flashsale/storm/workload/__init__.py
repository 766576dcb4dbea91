"""What is to be fired: scenario, load, steps, and the plan that they become. Pure."""
