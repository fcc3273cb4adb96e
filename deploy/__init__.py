"""From checkpoint to face: engines, the live loop, motion and robots. Nothing that the loop loads needs torch."""
