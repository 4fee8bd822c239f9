"""Pure integer laws of limits: time is an argument, state is passed and returned."""
