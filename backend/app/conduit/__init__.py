"""The RealWorld API ("Conduit"), mounted at /api: another edge of the same services.

application.py   the sub-application, with handlers and routers of its own
errors.py        the envelope of its errors
dependencies.py  who is asking, by `Authorization: Token …` or `Bearer …`
schemas.py       what goes in and out, by the names of its OpenAPI description
shapes.py        what the services return, in those shapes
users.py, profiles.py, articles.py, comments.py, tags.py   its operations
"""
