r"""Search text in scripts without spaces, and group searches by configuration, not by language.

Han, kana, Hangul, Thai, Lao, Khmer, Myanmar and related scripts are indexed as bigrams, and
non-ASCII punctuation separates words. The job `rendering` renders existing articles again, and a
trigger then updates their index. The previous release keeps working: the triggers call the
replaced functions for its writes as well. The migration can be run again if it was interrupted.

Revision: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Letters of Hangul and of scripts without spaces between words: UAX #14, classes ID and SA.
LETTERS = (
    r"\u0e01-\u0e30\u0e32-\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2-\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"
    r"\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065-\u1066\u106e-\u1070\u1075-\u1081"
    r"\u108e\u1100-\u11ff\u1780-\u17b3\u17d7\u17dc\u1950-\u19c9\u1a20-\u1a54\u1aa7\u3005-\u3007"
    r"\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u318e"
    r"\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua48c\ua960-\ua97c\ua9e0-\ua9e4\ua9e6-\ua9ef"
    r"\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a\uaa7e-\uaaaf\uaab1\uaab5-\uaab6\uaab9-\uaabd\uaac0"
    r"\uaac2-\uaadd\uac00-\ud7fb\uf900-\ufad9\uff66-\uffdc\U0001b000-\U0001b167"
    r"\U00020000-\U0003ffff"
)
# Their combining marks, such as vowel signs and tone marks.
MARKS = (
    r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u1056-\u1059"
    r"\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d"
    r"\u17b4-\u17d3\u17dd\u1a55-\u1a5e\u1a60-\u1a7c\u1a7f\u302a-\u302f\u3099-\u309a\ua9e5\uaa7b-\uaa7d\uaab0"
    r"\uaab2-\uaab4\uaab7-\uaab8\uaabe-\uaabf\uaac1"
)
# Invisible characters within words: zero-width spaces and joiners, variation selectors.
INVISIBLE = r"\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"
CHARACTER = f"[{LETTERS}][{MARKS}]*"
# Other characters to normalize: decomposed diacritics, full-width letters and digits.
AFFECTED = rf"[{LETTERS}\u0300-\u036f\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]"

# Non-ASCII punctuation and spaces, which PostgreSQL treats as letters if LC_CTYPE is C.
PUNCTUATION = (
    r"\u00a0\u00a1\u00a7\u00ab\u00b6\u00bb\u00bf\u037e\u0387\u055a-\u055f\u0589\u05be\u05c0\u05c3"
    r"\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u0e4f\u0e5a\u0e5b\u0f0b-\u0f14\u104a-\u104f"
    r"\u1361-\u1368\u1680\u17d4-\u17d6\u17d8-\u17db\u1800-\u180a\u2000-\u200a\u200e-\u2027"
    r"\u2028-\u205f\u2066-\u2069\u3000-\u3004\u3008-\u3020\u3030\u303d-\u303f\u30a0\u30fb"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)

# Half-width katakana from U+FF66 to U+FF9F, then full-width digits and letters.
FOLDED = "".join(chr(code) for code in range(0xFF66, 0xFFA0)) + "".join(
    chr(code + 0xFEE0) for code in (*range(48, 58), *range(65, 91), *range(97, 123))
)
FOLDS = (
    "ヲァィゥェォャュョッーアイウエオカキクケコサシスセソタチツテトナニヌネノ"
    "ハヒフヘホマミムメモヤユヨラリルレロワン\u3099\u309a"
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

# A run of such characters, 深度学习, is indexed as bigrams, `深度 度学 学习 习`. U+0005 separates
# them, and U+0006 encloses the run. Articles contain neither, so headlines can be restored. The
# last character is added alone, to find it in searches for one character. In a headline,
# `punctuation` preserves the other characters that count as spaces.
WORDS = rf"""
CREATE OR REPLACE FUNCTION public.article_words(body text, punctuation text DEFAULT ' ')
RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  IF octet_length(body) = char_length(body) THEN
    RETURN body;
  END IF;
  body := regexp_replace(body, '[{PUNCTUATION}]+', punctuation, 'g');
  IF body !~ '{AFFECTED}' THEN
    RETURN body;
  END IF;
  body := normalize(translate(body, '{FOLDED}', '{FOLDS}'), NFC);
  body := regexp_replace(body, '([{LETTERS}{MARKS}])[{INVISIBLE}]+', '\1', 'g');
  body := regexp_replace(body, '[{LETTERS}][{LETTERS}{MARKS}]*', E'\x06\\&\x06', 'g');
  body := regexp_replace(body, '{CHARACTER}', E'\\&\x05\\&', 'g');
  RETURN regexp_replace(body, E'\x06{CHARACTER.replace(chr(92), chr(92) * 2)}\x05', E'\x06', 'g');
END
$$
"""

# In a query, the last character of a run is redundant after the preceding bigram. A single
# character is the prefix of a bigram or the end of a run.
PAIRS = rf"""
CREATE OR REPLACE FUNCTION public.article_query_pairs(query tsquery) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT regexp_replace(
  regexp_replace(
    query::text, '(''(?:{CHARACTER}){{2}}'') <-> ''{CHARACTER}''(?! <)', '\1', 'g'
  ),
  '''{CHARACTER}''(?! <)', '\&:*', 'g'
)::tsquery
$$
"""

# Outside of quotes and exclusions, Latin and other words need not be adjacent: `iPhone手机`.
SEARCH_QUERY = r"""
CREATE OR REPLACE FUNCTION public.article_search_query(config regconfig, q text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT public.article_query_pairs(websearch_to_tsquery(config, string_agg(
  CASE WHEN part[1] ~ '^[-"]' THEN part[1]
    ELSE regexp_replace(
      regexp_replace(part[1], E'([a-z]{2})\x06', '\1 ', 'gi'), E'\x06([a-z]{2})', ' \1', 'gi'
    )
  END, ''
)))
FROM regexp_matches(
  public.article_words(q), '-*"[^"]*"?|[^\s"]+|\s+', 'g'
) AS part
$$
"""

SEARCH_VECTOR = """
CREATE OR REPLACE FUNCTION public.article_search_vector(
  language text, title text, excerpt text, body text
) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  config regconfig := public.article_search_config(language);
  -- Not `<`: what looks like a tag is no words to PostgreSQL, and after `<script>` nothing is.
  -- The second limit is for pairs, of which there are as many as characters: about 50,000.
  words text := left(public.article_words(replace(left(body, 100000), '<', ' ')), 150000);
  heading tsvector :=
    setweight(to_tsvector(config, public.article_words(replace(title, '<', ' '))), 'A')
    || setweight(to_tsvector(config, public.article_words(replace(excerpt, '<', ' '))), 'B');
BEGIN
  RETURN heading || setweight(to_tsvector(config, words), 'D');
EXCEPTION WHEN program_limit_exceeded THEN
  RETURN heading || setweight(to_tsvector(config, left(words, 10000)), 'D');
END
$$
"""

TITLE_WORDS = r"""
CREATE OR REPLACE FUNCTION public.article_title_words(title text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT to_tsvector(
  'pg_catalog.simple'::regconfig,
  public.article_words(
    translate(title, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32))
  )
)
$$
"""

# Each word is quoted, so that none is an operator. The last one is a prefix.
TITLE_QUERY = r"""
CREATE OR REPLACE FUNCTION public.article_title_query(q text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT regexp_replace(
  public.article_query_pairs(
    websearch_to_tsquery(
      'pg_catalog.simple'::regconfig,
      regexp_replace(
        public.article_words(
          translate(q, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32))
        ),
        '\S+', '"\&"', 'g'
      )
    )
  )::text,
  '''$', ''':*'
)::tsquery
$$
"""

# Headlines of long texts with bigrams are expensive. Only the part around the first match is used.
QUOTABLE = rf"""
CREATE OR REPLACE FUNCTION public.article_quotable(body text, positive text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  beginning text := left(body, 5000);
  wanted text;
BEGIN
  IF beginning !~ '[{LETTERS}]' THEN
    RETURN public.article_words(beginning, E'\x06\\&\x06');
  END IF;
  wanted := substring(
    regexp_replace(positive, ''' <-> ''{CHARACTER}', '', 'g') FROM '''([^'']+)'''
  );
  RETURN public.article_words(
    substr(body, greatest(1, strpos(lower(left(body, 100000)), wanted) - 100), 1000),
    E'\x06\\&\x06'
  );
END
$$
"""

OLD_SEARCH_VECTOR = """
CREATE OR REPLACE FUNCTION public.article_search_vector(
  language text, title text, excerpt text, body text
) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  config regconfig := public.article_search_config(language);
  -- Not `<`: what looks like a tag is no words to PostgreSQL, and after `<script>` nothing is.
  words text := replace(left(body, 100000), '<', ' ');
  heading tsvector := setweight(to_tsvector(config, replace(title, '<', ' ')), 'A')
    || setweight(to_tsvector(config, replace(excerpt, '<', ' ')), 'B');
BEGIN
  RETURN heading || setweight(to_tsvector(config, words), 'D');
EXCEPTION WHEN program_limit_exceeded THEN
  RETURN heading || setweight(to_tsvector(config, left(words, 10000)), 'D');
END
$$
"""

OLD_TITLE_WORDS = r"""
CREATE OR REPLACE FUNCTION public.article_title_words(title text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT to_tsvector(
  'pg_catalog.simple'::regconfig,
  translate(title, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32))
)
$$
"""

# Open connections cache the definition of an index on a function. This invalidates their cache.
FORGET_INDEX = "ALTER INDEX ix_articles_title_words ALTER COLUMN 1 SET STATISTICS -1"

INDEXES = {
    "ix_articles_public_config": "articles (public.article_search_config(language))"
    " WHERE published_at IS NOT NULL AND archived_at IS NULL AND deleted_at IS NULL",
    "ix_articles_config_author": "articles (public.article_search_config(language), author_id)",
}

# Runs after articles_before_write: triggers run in alphabetical order. The columns that it has just
# set are already up to date.
INDEX_AGAIN = """
CREATE OR REPLACE FUNCTION public.articles_index_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.search_vector IS NOT DISTINCT FROM OLD.search_vector THEN
    NEW.search_vector :=
      public.article_search_vector(NEW.language, NEW.title, NEW.excerpt, NEW.plain_text);
  END IF;
  RETURN NEW;
END
$$
"""
TRIGGER = """
CREATE OR REPLACE TRIGGER articles_index_again BEFORE UPDATE OF rendered_with ON articles
FOR EACH ROW WHEN (OLD.rendered_with < NEW.rendered_with)
EXECUTE FUNCTION articles_index_again()
"""


def upgrade() -> None:
    for function in (
        WORDS,
        PAIRS,
        SEARCH_QUERY,
        SEARCH_VECTOR,
        TITLE_WORDS,
        TITLE_QUERY,
        QUOTABLE,
        INDEX_AGAIN,
        TRIGGER,
        FORGET_INDEX,
    ):
        op.execute(sa.text(function.replace(":", r"\:")))
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # CONCURRENTLY waits without blocking others
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    op.execute("DROP TRIGGER IF EXISTS articles_index_again ON articles")
    op.execute(OLD_SEARCH_VECTOR)
    op.execute(OLD_TITLE_WORDS)
    op.execute(FORGET_INDEX)
    for function in (
        "articles_index_again()",
        "article_quotable(text, text)",
        "article_title_query(text)",
        "article_search_query(regconfig, text)",
        "article_query_pairs(tsquery)",
        "article_words(text, text)",
    ):
        op.execute(f"DROP FUNCTION IF EXISTS public.{function}")
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
