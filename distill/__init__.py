"""Teach the student: batches, losses, training and evaluation."""
