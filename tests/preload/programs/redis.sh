# shellcheck shell=sh disable=SC2154 # start sets $server
# Redis: load from redis-benchmark, then a known data set whose digest is
# compared, also after a background save and after a rewrite of the log file.

prepare() {
    awk -v n=$((300000 * PT_SCALE)) -f "$PT_SCRIPTS/redis.awk" >"$PT_DATA/commands"
}

run() {
    # Debian's redis-tools has the server in it, under the name of its checker.
    if command -v redis-server >/dev/null 2>&1; then
        ln -s "$(command -v redis-server)" redis-server
    else
        ln -s "$(command -v redis-check-rdb)" redis-server
    fi
    serve
    quiet benchmark redis-benchmark -s "$PT_TMP/socket" -q -n $((20000 * PT_SCALE)) -c 20 -P 4 -r 10000 -d 200 \
        -t set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset
    record flush redis-cli -s socket flushall
    bh redis-cli -s socket --pipe <"$PT_DATA/commands" >"$PT_OUT/load" 2>"$PT_LOG/load.stderr" || die "load: exit code $?"
    grep -q '^errors: 0,' "$PT_OUT/load" || die "load: $(tail -n 1 "$PT_OUT/load")"
    query before
    record rewrite redis-cli -s socket bgrewriteaof
    until_ready idle aof_rewrite_in_progress
    record save redis-cli -s socket bgsave
    until_ready idle rdb_bgsave_in_progress
    quiet check redis-check-rdb dump.rdb
    bh redis-cli -s socket shutdown nosave >/dev/null 2>&1 || true
    wait "$server" || die "redis-server ended with $?"
    serve # from the log file
    query after
    stop "$server"
    cmp "$PT_OUT/before" "$PT_OUT/after" || die "the restarted server has other data"
}

serve() {
    start redis ./redis-server --port 0 --unixsocket "$PT_TMP/socket" --dir "$PT_TMP" --save '' --appendonly yes \
        --appendfsync no --enable-debug-command local \
        --list-max-listpack-size 32 --lazyfree-lazy-user-del yes --lazyfree-lazy-user-flush yes
    until_ready answers
    loaded "$server"
}

answers() {
    [ "$(redis-cli -s socket ping)" = PONG ]
}

idle() {
    redis-cli -s socket info persistence | grep -q "^$1:0"
}

query() { # query NAME
    bh redis-cli -s socket >"$PT_OUT/$1" 2>"$PT_LOG/$1.stderr" <<END || die "$1: exit code $?"
dbsize
debug digest
zrange z 0 50 withscores
hget h:17 field:17
lrange l:3 0 20
getrange s:5 0 -1
eval "local t = {} for i = 1, 20000 do t[i] = 'x' .. i end return #table.concat(t)" 0
sort l:7 alpha limit 0 20
END
}
