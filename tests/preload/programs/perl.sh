# shellcheck shell=sh
# Perl: hashes, strings, sorting, regular expressions, fork, ithreads.

run() {
    PERL_HASH_SEED=0 record script perl "$PT_SCRIPTS/work.pl" "$PT_SCALE"
}
