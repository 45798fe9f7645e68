"""Conversion of texts from other systems to Markdown.

Everything except Markdown becomes HTML first, as it does in the systems themselves, and then
Markdown. Rendering the Markdown yields the same texts, links, emphasis, code and order of blocks.

results.py     the context that a text needs, the result, notes on what was changed or lost
trees.py       HTML as a tree without elements that have no equivalent in articles
inline.py      the tree's inline content as Markdown, with everything escaped
blocks.py      the tree's blocks as Markdown: paragraphs, lists, tables, figures
pages.py       HTML to Markdown
players.py     addresses of videos and other embedded content
footnotes.py   footnotes of blocks, plugins and Markdown converters
shortcodes.py  WordPress's shortcodes as HTML
posts.py       WordPress's posts: blocks, shortcodes and paragraphs
paragraphs.py  paragraphs from blank lines, as WordPress's wpautop makes them
cards.py       Ghost's cards as HTML
documents.py   Ghost's Lexical and Mobiledoc documents
generators.py  Markdown of Hugo, Jekyll, Octopress, Hexo and MDX
addresses.py   the addresses in a Markdown text, and their replacement
"""
