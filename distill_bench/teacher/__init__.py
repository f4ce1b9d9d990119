"""Making teachers: fine-tuning on labels, and the recipe of the embedded digits teacher."""
