"""Networks: the zoo of small-image families, and named features of any network."""
