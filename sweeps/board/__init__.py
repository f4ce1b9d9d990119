"""The leaderboard: entries, the board made of them, its tables and page, and reruns."""
