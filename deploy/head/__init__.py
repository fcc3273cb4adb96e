"""A robot head of our own: its mechanics as a MuJoCo model, and a painter that needs no graphics card."""
