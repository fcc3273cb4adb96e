"""What keeps a robot and the people around it safe when things break: stop, way home, black box, and a look inside."""
