"""The exact half: ground costs, certified solves, pairs, the store. Never imports torch."""
