"""Running trials: in this process, in a supervised worker, on Ray, on several hosts."""
