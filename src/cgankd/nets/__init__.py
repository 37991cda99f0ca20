"""Networks: the zoo of families for small images, named features of any network, and files of weights."""
