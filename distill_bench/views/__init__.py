"""The views that teachers and students see: crops, flips and mixup."""
