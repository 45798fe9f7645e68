"""Web pages: a reader site, a studio, account and administration pages, rendered by the server."""
