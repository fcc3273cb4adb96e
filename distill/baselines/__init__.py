"""Other people's models, trained and scored on the same sessions as the student: the rows beside it."""
