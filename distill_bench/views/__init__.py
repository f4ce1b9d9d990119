"""The views that teacher and student see: crops, flips, mixup."""
