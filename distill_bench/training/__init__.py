"""Training many students side by side on one stream of views and teacher logits."""
