"""Class-incremental learning: classes come in tasks, and the network after the last task is the teacher of the next."""
