"""Services for articles.

rows.py       selected columns and visibility rules
reading.py    read one article by id or slug
listing.py    lists: filters, sorting, pagination
counting.py   cached counts: totals of lists, lists of tags
matching.py   full-text search: which articles match
writing.py    create, update, delete and restore
inserting.py  insert articles, for both APIs, imports and example data
slugs.py      assign slugs and keep former ones
tagging.py    assign tags
images.py     references to images
rendering.py  columns derived from the Markdown: HTML, plain text, counts
addresses.py  URLs of the front end
authorship.py access to revisions and preview links

search.py, tags.py, revisions.py, previews.py, trash.py and changes.py are resources.
"""
