"""How an optimizer is declared and found: decorator, search domains, schedules, registry."""
