"""What leaves: a finished run's student as a file that needs no cgankd, its predictions, and generated images."""
