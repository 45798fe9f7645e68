"""Realtime: what happens is sent to open streams and sockets.

`hub.py` has the connections of this process, and passes on what happens. `changes.py` and
`comments.py` read it, and decide who sees it. `presence.py` knows who edits an article.
"""
