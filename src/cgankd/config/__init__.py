"""The settings of a run, and the recipes that come with the package."""
