# shellcheck shell=sh
# SQLite: a million rows, indexes, joins, window functions; the query results,
# the dump and the database file itself are compared.

run() {
    sed "s/@ROWS@/$((1000000 * (PT_SCALE > 1 ? 3 : 1)))/" "$PT_SCRIPTS/million.sql" >"$PT_TMP/million.sql"
    record queries sqlite3 -batch -bail test.db ".read million.sql"
    digest <test.db >"$PT_OUT/database"
    record integrity sqlite3 -cmd 'pragma cache_size = -200000' test.db 'pragma integrity_check'
    bh sqlite3 test.db .dump >dump 2>"$PT_LOG/dump.stderr" || die "dump: exit code $?"
    digest <dump >"$PT_OUT/dump"
    [ "$PT_SCALE" -gt 1 ] || return 0
    quiet restore sqlite3 -batch -bail -cmd 'pragma cache_size = -200000' restored.db ".read dump"
    bh sqlite3 restored.db .dump >dump 2>"$PT_LOG/dump.stderr" || die "second dump: exit code $?"
    [ "$(digest <dump)" = "$(cat "$PT_OUT/dump")" ] || die "the restored database has another dump"
}
