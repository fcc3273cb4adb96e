"""What is in a dataset: how often listeners move what, together with what, and how long after the speaker."""
