"""The frozen tasks, their variations, and the parameters of their teachers and students."""
