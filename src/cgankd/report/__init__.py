"""The results of a run for people: a table in the terminal and one HTML page. Reads a run's files, never the stages."""
