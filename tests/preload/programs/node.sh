# shellcheck shell=sh
# Node.js: Buffers, JSON, compression, hashing, worker threads, child processes.

run() {
    record script node "$PT_SCRIPTS/work.js" "$PT_SCALE"
    expect 5 exit_code node -e 'process.exitCode = 5'
}
