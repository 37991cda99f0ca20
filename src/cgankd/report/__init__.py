"""What a person sees of a run: a table in the terminal and one page. Reads a run's files, never the stages."""
