"""What every other package may use: errors, files, random numbers, processes, the store of results."""
