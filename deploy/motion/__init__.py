"""From prediction to motion: smoothing, limits and look-ahead; causal, each a small state of its own."""
