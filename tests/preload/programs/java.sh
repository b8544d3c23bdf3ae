# shellcheck shell=sh
# OpenJDK: null pointers, stack ends and safepoints by its own SIGSEGV handler, the
# collector, threads, compression outside its heap. Not in CI: a JDK is 300 MiB.

prepare() {
    javac -d "$PT_DATA" "$PT_SCRIPTS/Work.java"
}

run() {
    record work java -Xmx256m -cp "$PT_DATA" Work "$PT_SCALE"
}
