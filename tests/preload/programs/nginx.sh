# shellcheck shell=sh disable=SC2154 # start sets $server
# nginx under load: files, gzip and a proxy with a cache in front of a second
# server; the bodies are compared, and the server reloads under load.

find_nginx() {
    PATH=$PATH:/usr/sbin:/sbin
    export PATH
}

prepare() {
    mkdir "$PT_DATA/www"
    for size in 1 100 5000 70000 900000; do
        awk -v n="$size" 'BEGIN { while (length(s) < n) s = s "line " i++ " of a file that compresses well\n"; printf "%s", substr(s, 1, n) }' \
            >"$PT_DATA/www/$size.txt"
    done
}

run() {
    find_nginx
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    mkdir temp
    user=
    [ "$(id -u)" != 0 ] || user='user nobody nogroup;'
    sed "s|@TMP@|$PT_TMP|g; s|@WWW@|$PT_DATA/www|g; s|@PORT@|$port|g; s|@USER@|$user|" "$PT_SCRIPTS/nginx.conf" >nginx.conf
    start nginx nginx -p "$PT_TMP" -c "$PT_TMP/nginx.conf" -e "$PT_LOG/nginx.error.log"
    until_ready python3 "$PT_SCRIPTS/fetch.py" "$port" 1 1.txt
    loaded "$server"
    workers=$(children "$server")
    [ -n "$workers" ] || die "nginx has no workers"
    for worker in $workers; do
        loaded "$worker"
    done
    load plain "http://127.0.0.1:$port/5000.txt" 60000
    load gzip "http://127.0.0.1:$port/gzip/70000.txt" 3000
    load proxy "http://127.0.0.1:$port/proxy/70000.txt" 10000
    load missing "http://127.0.0.1:$port/nothing" 30000
    python3 "$PT_SCRIPTS/fetch.py" "$port" $((150 * PT_SCALE)) 1.txt 100.txt 5000.txt 70000.txt 900000.txt \
        gzip/70000.txt gzip/900000.txt proxy/5000.txt proxy/900000.txt cache/70000.txt ssi/1.txt nothing >"$PT_OUT/bodies" &
    fetching=$!
    for i in 1 2 3; do
        sleep 0.3
        kill -HUP "$server" || die "the server is gone at reload $i"
    done
    wait "$fetching" || die "fetching bodies ended with $?"
    stop "$server" QUIT
    ! grep -E '\[(alert|emerg)\]|exited on signal' "$PT_LOG/nginx.error.log" >&2 || die "nginx complains"
}

load() { # load NAME URL REQUESTS
    quiet "load.$1" ab -q -k -c 32 -n $(($3 * PT_SCALE)) -H 'Accept-Encoding: gzip' "$2"
    grep -E '^(Complete requests|Failed requests|Non-2xx responses|Document Length)' "$PT_LOG/load.$1.stdout" >"$PT_OUT/load.$1"
    grep -qx 'Failed requests: *0' "$PT_OUT/load.$1" || die "load $1: $(grep '^Failed' "$PT_OUT/load.$1")"
}
