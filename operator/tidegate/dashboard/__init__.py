"""The web dashboard: read-only, with the reader's own token and thus the reader's own rights.

It holds no rights and no token of its own. What a reader's browser sends as bearer token goes to
the API server with each request made for it; the API server authenticates and authorises.
"""
