"""Services for comments: threads on articles.

rows.py        selected columns and visibility rules
reading.py     threads, replies and the moderation queue
writing.py     create, update, delete and moderate
moderating.py  moderate several comments at once
"""
