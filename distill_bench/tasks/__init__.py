"""The frozen tasks, their variations, and the parameters that they start from."""
