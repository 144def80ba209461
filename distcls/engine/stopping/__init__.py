"""Stop requests, the agreement of all ranks on the step to stop at, and the outcome of a run."""
