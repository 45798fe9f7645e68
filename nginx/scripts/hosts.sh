#!/bin/sh
# Prints server_name for the hosts in ALLOWED_HOSTS, with the backend's syntax: separated by commas, or a JSON list.
# With --first, prints a host of the list, for requests of nginx to the backend.
set -euf
hosts=$(printf '%s' "${ALLOWED_HOSTS:-}" | tr -d '[]"')
case "$hosts" in
  *[!A-Za-z0-9.,*\ -]*)
    echo "ALLOWED_HOSTS is a list of host names without scheme, port and path; *.example.com is allowed" >&2
    exit 1
    ;;
esac
names=
for host in $(printf '%s' "$hosts" | tr ',' ' '); do
  [ "$host" = '*' ] && names= && break
  names="$names $host"
done
if [ "${1:-}" = --first ]; then
  set -- $names localhost
  printf '%s\n' "$1" | sed 's/^\*\./www./'
  exit
fi
# Without a list, or with a plain `*`, all hosts are served. `~^` matches every name, including an empty one.
echo "server_name ${names:-~^};"
