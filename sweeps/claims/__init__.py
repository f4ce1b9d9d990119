"""What the project claims about its tasks, each with the measurement that tests it."""
