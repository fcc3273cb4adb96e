"""What the engine is: the streaming student, its contract and its front end."""
