"""Between the machine that thinks and the controller beside the robot: messages, trust, a common time, both ends."""
