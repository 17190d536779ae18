# What tests of command lines share; they source it. Goes into a folder of its own, which is
# removed at the end, with the programs in PATH. Wants VNEVA_BIN and VNEVA_SOURCE.
# shellcheck shell=sh
set -u
PATH=$VNEVA_BIN:$PATH
# shellcheck disable=SC2034
golden=$VNEVA_SOURCE/tests/golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0 # the exit status

fail() {
    echo "FAILED: $*" >&2
    failed=1
}
# exits CODE COMMAND...: output is in out, errors in err
exits() {
    want=$1
    shift
    "$@" >out 2>err </dev/null
    got=$?
    [ "$got" = "$want" ] || { fail "exit status $got, not $want: $*"; cat err >&2; }
}
# says TEXT: of the command before, on standard error
says() {
    grep -qF -- "$1" err || fail "it does not say '$1' but: $(cat err)"
}
