#!/bin/sh
# Prints entries of nginx's map from the Origin header to the allowed origin, for CORS_ORIGINS with the backend's syntax
# (backend/app/core/origins.py). They are regular expressions: plain keys would ignore case.
set -eu
export LC_ALL=C
refuse() {
  echo "CORS_ORIGINS: '$1' must be an origin such as https://www.example.com" >&2
  exit 1
}
given=$(printf '%s' "${CORS_ORIGINS:-${BACKEND_CORS_ORIGINS:-}}" | sed 's/^ *//; s/ *$//')
if [ -z "$given" ] && [ "${ENVIRONMENT:-}" != production ]; then
  given='http://localhost:*,http://127.0.0.1:*'
fi
case $given in
  *[!]A-Za-z0-9._:/*,\ \"[-]*) refuse "$given" ;;
  # A JSON list.
  \[*\]) given=$(printf '%s' "$given" | sed 's/^\[//; s/\]$//; s/"//g') ;;
esac
printf '%s\n' "$given" | tr ',' '\n' | tr 'A-Z' 'a-z' | sed 's/^ *//; s/ *$//; /^$/d' | while read -r origin; do
  if [ "$origin" = '*' ]; then
    echo '"~." "*";'
    continue
  fi
  printf '%s\n' "$origin" |
    grep -qxE 'https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4}|:\*)?' || refuse "$origin"
  # Browsers omit the default port. A port `*` also matches its absence.
  pattern=$(printf '%s' "$origin" |
    sed 's/^\(http:.*\):80$/\1/; s/^\(https:.*\):443$/\1/; s/[].[]/\\&/g; s/:\*$/(:[1-9][0-9]{0,4})?/')
  printf '"~^%s$" $http_origin;\n' "$pattern"
done
