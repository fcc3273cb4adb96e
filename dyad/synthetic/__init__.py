"""Conversations with known ground truth: a scripted speaker, drawn and voiced, and a listener who reacts causally.

`script` says what happens, `voice` and `face` show it, `listener` answers it, `bound` knows what could be predicted.
Everything here is synthetic; nothing was learnt from or copied off a person.
"""
