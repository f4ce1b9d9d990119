"""The engine: one stream of views and teacher logits that trains many students side by side."""
