"""How an optimizer is declared and found: the decorator, search domains, schedules, the registry."""
