"""The RealWorld API ("Conduit"), mounted at /api, on top of the same services.

application.py   the sub-application with its own exception handlers and routers
errors.py        its error format
dependencies.py  authentication with `Authorization: Token …` or `Bearer …`
schemas.py       request and response models, with the names of its OpenAPI description
shapes.py        conversion of service results into response bodies
users.py, profiles.py, articles.py, comments.py, tags.py   its operations
"""
