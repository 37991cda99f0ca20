"""The training of students and teachers: one loop, the batch's way through both, and the choice of weights."""
