#!/bin/sh
# Does a newcomer's first hour work? Makes a minimal Debian 12 root, clones this
# repository into it, and types what the README says. By hand, as root, on a
# machine with debootstrap and unshare:
#
#   fresh-root.sh [--worktree] [--tarball FILE] [--shell] [--] [STAGE...]
#
# --worktree      take the files as they are, committed or not, instead of a clone
# --tarball FILE  keep the bare root in FILE, and take it from there next time
# --shell         a shell inside afterwards
# STAGE           stages for ./bulkhead test; default: all
#
# DEBIAN_MIRROR   where Debian comes from; default: as on this machine
#
# Everything happens in a mount and process namespace of its own, with nothing
# mounted outside of it and nothing left running after it. /proc/sys is read-only
# inside. Exit status: 0 both commands succeeded, 1 not, 2 wrong usage.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
release=bookworm

usage() {
    echo "usage: fresh-root.sh [--worktree] [--tarball FILE] [--shell] [--] [STAGE...]" >&2
    exit 2
}

worktree=
tarball=
shell=
while [ $# -gt 0 ]; do
    case $1 in
    --worktree) worktree=yes ;;
    --tarball)
        [ $# -ge 2 ] || usage
        tarball=$2
        shift
        ;;
    --shell) shell=yes ;;
    --)
        shift
        break
        ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
if [ "$(id -u)" != 0 ]; then
    echo "fresh-root.sh: needs root" >&2
    exit 2
fi
for tool in debootstrap unshare chroot git tar; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "fresh-root.sh: needs $tool" >&2
        exit 2
    fi
done

work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-root.XXXXXX")
new=$work/root
# The mounts are in another namespace and gone with it; one-file-system is for
# the day when that is no longer so.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() {
    printf 'fresh-root: %s\n' "$*" >&2
}

# The first of this machine's own sources that has the release.
mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
        awk -v r="$release" '$1 == r && $2 == "main" { print $3; exit }'
}

make_root() {
    mkdir "$new"
    if [ -n "$tarball" ] && [ -f "$tarball" ]; then
        say "taking the bare root from $tarball"
        tar -xpf "$tarball" -C "$new" --numeric-owner
        return
    fi
    say "making a bare $release root"
    # shellcheck disable=SC2046 # no argument when there is no mirror
    debootstrap --variant=minbase --include=git,ca-certificates "$release" "$new" $(mirror) >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        return 1
    }
    [ -z "$tarball" ] || tar -cpf "$tarball" -C "$new" --numeric-owner .
}

# Where and how apt gets packages is a matter of this machine, not of the test.
copy_apt() {
    found=
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        if [ -s "$file" ] && grep -q "$release" "$file"; then
            if [ -z "$found" ]; then rm -f "$new/etc/apt/sources.list"; fi
            found=yes
            cp "$file" "$new${file%/*}/"
        fi
    done
    # Proxies, time-outs and the like, without the hooks of this machine.
    apt-config dump | grep -iE '^Acquire::(http|https|Check|Retries|Languages)' >"$new/etc/apt/apt.conf.d/90machine" || true
    for folder in /etc/apt/keyrings /etc/apt/trusted.gpg.d; do
        [ ! -d "$folder" ] || cp -R "$folder/." "$new$folder/"
    done
    # Certificates that this machine trusts beyond Debian's.
    if [ -n "$(ls /usr/local/share/ca-certificates 2>/dev/null)" ]; then
        cp -R /usr/local/share/ca-certificates/. "$new/usr/local/share/ca-certificates/"
        chroot "$new" update-ca-certificates >/dev/null 2>&1 || true
    fi
    cp -L /etc/resolv.conf /etc/hosts "$new/etc/"
}

copy_project() {
    if [ -n "$worktree" ]; then
        mkdir "$new/bulkhead"
        (cd "$root" && git ls-files -z --cached --others --exclude-standard) >"$work/files"
        tar -cf - -C "$root" --null --ignore-failed-read -T "$work/files" 2>/dev/null | tar -xf - -C "$new/bulkhead" --no-same-owner
        # The tests clone the repository too.
        chroot "$new" sh -c 'cd /bulkhead && git init -q -b main && git add -A &&
            git -c user.name=test -c user.email=test@example.org commit -q -m "the work tree"'
    else
        git clone -q --no-local "file://$root" "$new/bulkhead"
    fi
}

# inside COMMAND...: in the new root, in its own namespaces, from the clone.
inside() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --pid --fork --kill-child --propagation private sh -euc '
        new=$1
        shift
        mount --bind "$new" "$new"
        mount -t proc proc "$new/proc"
        mount --bind "$new/proc/sys" "$new/proc/sys"
        mount -o remount,bind,ro "$new/proc/sys"
        mount --rbind /dev "$new/dev"
        exec chroot "$new" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
            ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} ${CI:+CI="$CI"} \
            ${BULKHEAD_TEST_SECONDS:+BULKHEAD_TEST_SECONDS="$BULKHEAD_TEST_SECONDS"} \
            sh -c "cd /bulkhead && exec \"\$@\"" - "$@"
    ' - "$new" "$@"
}

failed=0
# typed COMMAND...: runs it inside and reports its exit code and time.
typed() {
    say "typing: $*"
    began=$(date +%s)
    code=0
    inside "$@" || code=$?
    echo "fresh-root: exit code $code after $(($(date +%s) - began)) s: $*"
    [ "$code" -eq 0 ] || failed=1
}

make_root
copy_apt
copy_project
typed ./bulkhead run git log --oneline -n 3
# The first command did all the set-up: nothing may be said this time.
# shellcheck disable=SC2016 # expanded by the shell inside
typed sh -c 'said=$(./bulkhead run perl -e "print 6 * 7" 2>&1) && echo "$said" && [ "$said" = 42 ]'
# shellcheck disable=SC2016
typed sh -c 'test "$(./bulkhead run ls -R /usr | sort | sha256sum)" = "$(ls -R /usr | sort | sha256sum)"'
typed ./bulkhead test "$@"
[ -z "$shell" ] || inside sh -i || true
if [ "$failed" -eq 0 ]; then echo "fresh-root: all commands succeeded"; else echo "fresh-root: not all commands succeeded"; fi
exit "$failed"
