"""Teachers that only answer, and several of them: what may stand in the trained teacher's place."""
