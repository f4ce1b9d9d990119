"""The leaderboard: its entries, tables and web page, and reruns of entries."""
