#!/bin/sh
# Prints server_name for the hosts in ALLOWED_HOSTS, with the backend's syntax: separated by commas, or a JSON list.
set -eu
hosts=$(printf '%s' "${ALLOWED_HOSTS:-}" | tr -d '[]"')
case "$hosts" in
  *[!A-Za-z0-9.,*\ -]*)
    echo "ALLOWED_HOSTS is a list of host names without scheme, port and path; *.example.com is allowed" >&2
    exit 1
    ;;
esac
names=
for host in $(printf '%s' "$hosts" | tr ',' ' ' | sed 's/\*/%/g'); do
  [ "$host" = % ] && names= && break
  names="$names $(printf '%s' "$host" | sed 's/%/*/g')"
done
# Without a list, or with a plain `*`, all hosts are served. `~^` matches every name, including an empty one.
echo "server_name ${names:-~^};"
