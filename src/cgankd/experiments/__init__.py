"""Many runs that share their artifacts: the paper's tables (students x settings) and its ablation figures."""
