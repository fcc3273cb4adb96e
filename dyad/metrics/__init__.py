"""Every score, as pure functions of arrays."""
