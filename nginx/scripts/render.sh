#!/bin/sh
# Runs in the container `nginx-config`: renders the configuration into the volume, tests it, and selects it.
#
#   /config/<checksum>/   a rendered configuration with its scripts
#   /config/selected      the checksum of the configuration that nginx should use
#   /config/run.sh        starts nginx in its container
#
# Then it runs the given command. nginx applies the selection within a second (run.sh, apply.sh).
set -eu
# In development, suites of end-to-end tests create many accounts from one address.
if [ -z "${EDGE_ATTEMPTS_PER_MINUTE:-}" ]; then
  EDGE_ATTEMPTS_PER_MINUTE=10
  [ "${ENVIRONMENT:-}" != development ] || EDGE_ATTEMPTS_PER_MINUTE=60000
fi
for name in MAX_BODY_BYTES ACCESS_LOG_PERCENT EDGE_CACHE_MEGABYTES EDGE_REQUESTS_PER_SECOND EDGE_ATTEMPTS_PER_MINUTE \
  EDGE_UPLOADS_PER_MINUTE EDGE_LARGE_BODIES_PER_MINUTE EDGE_STREAMS_PER_ADDRESS; do
  eval "value=\${$name:-}"
  case $value in
    '' | *[!0-9]* | 0*)
      echo "$name must be a whole number from 1, without leading zeros" >&2
      exit 1
      ;;
  esac
done
case ${TRUSTED_PROXY:-} in
  '' | *[!A-Za-z0-9.:/-]*)
    echo "TRUSTED_PROXY must be one IP address or network, such as 172.16.0.0/12" >&2
    exit 1
    ;;
esac
WEB_PREFIX=${WEB_PREFIX:-/read}
WEB_PREFIX=${WEB_PREFIX%/}
case $WEB_PREFIX in
  *[!A-Za-z0-9_/-]* | *//* | [!/]* | '')
    echo "WEB_PREFIX must be a path such as /read" >&2
    exit 1
    ;;
esac
export WEB_PREFIX
if [ ${#EDGE_ATTEMPTS_PER_MINUTE} -gt 6 ]; then
  echo "EDGE_ATTEMPTS_PER_MINUTE must be at most 999999" >&2
  exit 1
fi
# Rounded up.
EDGE_ATTEMPT_SECONDS=$(((59 + EDGE_ATTEMPTS_PER_MINUTE) / EDGE_ATTEMPTS_PER_MINUTE))
# The attempts of a second, and at least ten.
EDGE_ATTEMPTS_BURST=$((EDGE_ATTEMPTS_PER_MINUTE / 60))
[ "$EDGE_ATTEMPTS_BURST" -ge 10 ] || EDGE_ATTEMPTS_BURST=10
export EDGE_ATTEMPTS_PER_MINUTE EDGE_ATTEMPT_SECONDS EDGE_ATTEMPTS_BURST

# For Kubernetes: nginx itself does not use the search domains of its container.
case ${BACKEND_DOMAIN:-} in
  *[!a-z0-9.-]* | [!.]*)
    echo "BACKEND_DOMAIN must be a domain with a leading dot, such as .blog.svc.cluster.local" >&2
    exit 1
    ;;
esac
# The first name server of the container. Networks of Docker have 127.0.0.11.
RESOLVER=$(sed -n 's/^nameserver[[:space:]]\{1,\}\([0-9a-fA-F.:]\{1,\}\).*/\1/p' /etc/resolv.conf | head -n 1)
case $RESOLVER in
  *:*) RESOLVER="[$RESOLVER]" ;;
  '') RESOLVER=127.0.0.11 ;;
esac
export BACKEND_DOMAIN RESOLVER

new=/config/.rendering-$(hostname)
rm -rf "$new"
mkdir -p "$new/conf.d"
cp -r /release/nginx.conf /release/snippets /release/scripts "$new/"
envsubst '$EDGE_ATTEMPTS_BURST' </release/snippets/limits.conf >"$new/snippets/limits.conf"
envsubst '$EDGE_STREAMS_PER_ADDRESS' </release/snippets/site.conf >"$new/snippets/site.conf"
sh /release/scripts/hosts.sh >"$new/conf.d/hosts.inc"
sh /release/scripts/origins.sh >"$new/conf.d/origins.inc"
# For requests of withdraw.sh to the backend.
sh /release/scripts/hosts.sh --first >"$new/host"
# Substitute only these: nginx variables have the same syntax.
render() {
  envsubst '$MAX_BODY_BYTES $TRUSTED_PROXY $HTTPS_PORT $TLS_CERTIFICATE $TLS_CERTIFICATE_KEY $EDGE_CACHE_MEGABYTES
    $EDGE_REQUESTS_PER_SECOND $EDGE_ATTEMPTS_PER_MINUTE $EDGE_ATTEMPT_SECONDS $EDGE_UPLOADS_PER_MINUTE $EDGE_LARGE_BODIES_PER_MINUTE
    $ACCESS_LOG_PERCENT $WEB_PREFIX $CONFIG_CHECKSUM $RESOLVER $BACKEND_DOMAIN' <"$1" >"$new/conf.d/$(basename "$1" .template)"
}
render /release/templates/edge.conf.template
[ "${EDGE_METRICS:-}" != true ] || cp /release/templates/metrics-log.conf "$new/conf.d/"
if [ -n "${TLS_CERTIFICATE:-}" ]; then
  render /release/tls/tls.conf.template
  cp /release/tls/redirect.conf "$new/snippets/entry.conf"
fi
CONFIG_CHECKSUM=$(cd "$new" && find . -type f | sort | xargs cat /release/templates/active.conf.template | sha256sum |
  cut -c 1-16)
export CONFIG_CHECKSUM
render /release/templates/active.conf.template
nginx -t -q -c "$new/nginx.conf"

if [ ! -d "/config/$CONFIG_CHECKSUM" ]; then
  mv "$new" "/config/$CONFIG_CHECKSUM"
fi
rm -rf "$new"
# `mv` replaces a file atomically.
cp /release/scripts/run.sh /config/run.sh.new
mv /config/run.sh.new /config/run.sh
echo "$CONFIG_CHECKSUM" >/config/selected.new
mv /config/selected.new /config/selected
echo "$CONFIG_CHECKSUM" >/tmp/checksum
echo "selected the configuration $CONFIG_CHECKSUM"
touch "/config/$CONFIG_CHECKSUM"
# Keep the newest five.
ls -dt /config/*/ | tail -n +6 | xargs -r rm -rf
exec "$@"
