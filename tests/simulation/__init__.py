"""Long stretches of simulated time."""
