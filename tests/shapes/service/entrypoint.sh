#!/bin/sh
# Serves until it is told to stop; `once` asks itself and ends.
set -eu
busybox httpd -f -p "127.0.0.1:$PORT" -h /srv/www &
server=$!
[ "${1:-}" = once ] || wait $server
for _ in 1 2 3 4 5 6 7 8 9 10; do
    busybox wget -q -O- "http://127.0.0.1:$PORT/" 2>/dev/null && break
    sleep 0.2
done
kill $server
id -un
