"""Whom to watch: everybody's face over time, who they are, and which of them is speaking.

`watcher` is what the loop calls; `people` follows faces, `anchors` and `embedding` tell persons apart, `voice` and
`speaker` find who speaks. The box handed to the student always comes from `student.face`, as in training; `tracker` and
`search` only spread its search of a whole picture over several frames, and `sweep` looks for everybody else.
"""
