"""Comments: threads on articles.

rows.py        what a read selects, and which comments a reader sees
reading.py     threads, replies, and what waits for a moderator
writing.py     writing, changing, deleting; hiding, approving, locking
"""
