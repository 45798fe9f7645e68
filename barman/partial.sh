# Sourced by the other scripts: what the receiver has of an incomplete WAL file stays recoverable when it begins again.
keep_partial() {
  mkdir -p /var/lib/barman/partial
  find /var/lib/barman/partial -type f -mtime "+$((2 * ${BARMAN_KEEP_DAYS:-7}))" -delete
  find /var/lib/barman/pressroom/streaming -type f -exec mv -t /var/lib/barman/partial {} +
}
