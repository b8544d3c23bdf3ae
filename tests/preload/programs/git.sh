# shellcheck shell=sh
# Git: import, clone, log, gc, fsck of a repository of a few thousand objects,
# and of the project's own where it is a repository.

prepare() {
    git config --global safe.directory '*'
    perl "$PT_SCRIPTS/history.pl" $((1500 * (PT_SCALE > 1 ? 6 : 1))) >"$PT_DATA/history"
    # A copy, so that a commit made meanwhile does no harm.
    if git -C "$PT_ROOT" rev-parse -q --verify HEAD >/dev/null 2>&1; then
        git clone -q --bare --no-local "file://$PT_ROOT" "$PT_DATA/project"
    fi
}

run() {
    git config --global safe.directory '*'
    git config --global gc.auto 0
    quiet init git init -q --bare -b main imported
    bh git -C imported fast-import --quiet <"$PT_DATA/history" 2>"$PT_LOG/import.stderr" || die "fast-import: exit code $?"
    exercise imported
    if [ -d "$PT_DATA/project" ]; then exercise "$PT_DATA/project"; fi
}

exercise() { # exercise REPOSITORY
    name=$(basename "$1")
    quiet "$name.clone" git clone -q --no-local "file://$(cd "$1" && pwd)" "$name.copy"
    record "$name.log" git -C "$name.copy" log --stat --format='%H %an %ad %s'
    record "$name.blame" git -C "$name.copy" blame "$(git -C "$name.copy" ls-files | head -n 1)"
    record "$name.grep" git -C "$name.copy" grep -c e HEAD
    quiet "$name.gc" git -C "$name.copy" -c gc.pruneExpire=now gc -q
    # More than one thread may pack the same objects in another way, one may not.
    quiet "$name.repack" git -C "$name.copy" -c pack.threads=1 repack -q -a -d -f --depth=20 --window=20
    cat "$name.copy"/.git/objects/pack/*.pack | digest >"$PT_OUT/$name.pack"
    record "$name.fsck" git -C "$name.copy" fsck --full --strict --no-progress
    record "$name.objects" git -C "$name.copy" cat-file --batch-check --batch-all-objects
    # An untouched tree, and a changed one.
    record "$name.same" git -C "$name.copy" diff --exit-code HEAD
    rm "$name.copy/$(git -C "$name.copy" ls-files | head -n 1)"
    expect 1 "$name.differs" git -C "$name.copy" diff --exit-code HEAD
}
