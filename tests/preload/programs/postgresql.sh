# shellcheck shell=sh disable=SC2154 # start sets $server
# PostgreSQL: initdb, pgbench with its books balanced, and queries over joins,
# JSON, PL/pgSQL, parallel workers and compiled expressions.

find_postgres() {
    command -v initdb >/dev/null 2>&1 && return
    for folder in /usr/lib/postgresql/*/bin; do
        [ ! -x "$folder/initdb" ] || PATH=$folder:$PATH
    done
    export PATH
}

run() {
    find_postgres
    mkdir pg
    chmod 700 pg
    [ -z "$unprivileged" ] || chown 65534:65534 pg
    cd pg || die "no work folder"
    export PGHOST="$PT_TMP/pg" PGDATABASE=postgres PGUSER=test
    # shellcheck disable=SC2086 # a list of words
    quiet initdb $unprivileged initdb -D "$PT_TMP/pg/data" -U test -A trust --no-sync -E UTF8 --locale=C
    # shellcheck disable=SC2086
    start postgres $unprivileged postgres -D "$PT_TMP/pg/data" -k "$PT_TMP/pg" -c listen_addresses= -c fsync=off \
        -c shared_buffers=64MB -c dynamic_shared_memory_type=mmap
    until_ready psql -Xc 'select 1'
    loaded "$server"
    # 8 clients; a fixed seed makes the sums the same in every run.
    quiet pgbench_init pgbench -i -q -s 2
    quiet pgbench pgbench -n --random-seed=42 -c 8 -j 2 -t $((300 * PT_SCALE))
    record balances psql -XAtc "
        select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
               (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history),
               (select count(*) from pgbench_history)"
    awk -F '|' -v n=$((8 * 300 * PT_SCALE)) '{ exit !($1 == $2 && $2 == $3 && $3 == $4 && $5 == n) }' \
        "$PT_OUT/balances" || die "the books do not balance: $(cat "$PT_OUT/balances")"
    record queries psql -XAt -v ON_ERROR_STOP=1 -v n=$((200000 * PT_SCALE)) -f "$PT_SCRIPTS/queries.sql"
    quiet vacuum psql -Xc 'vacuum full analyze'
    record dump pg_dump --no-owner -t numbers
    sed -i '/^-- Dumped/d; /^.\(un\)\{0,1\}restrict /d' "$PT_OUT/dump"
    stop "$server" INT
}
