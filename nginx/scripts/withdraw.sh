#!/bin/sh
# Runs every ten seconds in nginx's container: deletes cached pages that show articles which were unpublished or deleted.
# A page that is requested again is replaced by a 404 anyway. But a page without a request would return in an outage,
# when nginx serves what it has (snippets/cache.conf). The change feed lists such articles (docs/api/changes.md).
set -eu
host=$(cat "$(dirname "$0")/../host")
cursor=$(cat /tmp/cursor 2>/dev/null || true)
url="http://ready-backend:8000/changes?limit=1000&cursor=${cursor:-latest}"
curl --silent --max-time 5 --header "Host: $host" --output /tmp/changes --write-out '%{http_code}' "$url" \
  >/tmp/changes-status || exit 0
case $(cat /tmp/changes-status) in
  200) sed -n 's/.*"next":"\([^"]*\)".*/\1/p' /tmp/changes >/tmp/cursor ;;
  422) rm -f /tmp/cursor && exit 0 ;; # an unknown cursor: start at the present end
  *) exit 0 ;;
esac
# At the start, an earlier withdrawal may have been missed.
if [ -z "$cursor" ]; then
  find /var/cache/nginx/pages -type f -delete
  exit 0
fi
tr '}' '\n' </tmp/changes |
  sed -n 's/.*"kind":"\(unpublished\|deleted\)","article_id":\([0-9]*\),"slug":"\([^"]*\)".*/\2 \3/p' |
  while read -r id slug; do
    # The key is in the first lines of a file. More pages than necessary may match, which does no harm.
    grep -rlaF -e "\"id\":$id," -e "/articles/$id" -e "$slug" /var/cache/nginx/pages | xargs -r rm -f
  done
