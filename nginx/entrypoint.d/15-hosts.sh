#!/bin/sh
# Tells nginx which hosts are served: ALLOWED_HOSTS, as the backend reads it. Run by the image's entry point, before it
# fills in the templates.
set -eu
case "${ALLOWED_HOSTS:-}" in
  *[!A-Za-z0-9.,*:\ -]*)
    echo "ALLOWED_HOSTS is a list of host names, separated by commas; *.example.com is allowed" >&2
    exit 1
    ;;
esac
names=
for host in $(printf '%s' "${ALLOWED_HOSTS:-}" | tr ',' ' ' | sed 's/\*/%/g'); do
  [ "$host" = % ] && names= && break
  names="$names $(printf '%s' "$host" | sed 's/%/*/g')"
done
# Without a list, or with a plain `*`, every host is: this expression is what matches all names, an empty one too.
echo "server_name ${names:-~^};" >/etc/nginx/conf.d/hosts.inc
