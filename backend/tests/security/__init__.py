"""The attack suite: each test does what an attacker would, and expects to get nothing for it."""
