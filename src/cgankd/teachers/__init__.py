"""Black-box teachers and juries of teachers, which can replace the trained teacher."""
