"""Class-incremental learning: classes come in tasks, and the network's old self is the teacher that is adapted."""
