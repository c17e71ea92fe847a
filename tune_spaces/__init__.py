"""Search spaces, studies and sweeps with Ray Tune and Optuna."""
