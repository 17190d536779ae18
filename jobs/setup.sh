#!/bin/sh
# jobs/setup.sh [build|test] - installs the packages vneva is built with (and, for "test",
# those its tests use besides) on Debian and Ubuntu. Elsewhere it prints the list and
# leaves: the build says what it does not find.
set -eu

build_packages="build-essential cmake ninja-build pkg-config libzmq3-dev libsodium-dev
    libmsgpack-dev libyaml-dev libncurses-dev libsqlite3-dev libavformat-dev libavcodec-dev
    libavutil-dev libswscale-dev libjpeg-dev libwebp-dev libdnnl-dev libsentencepiece-dev
    libpcre2-dev libutf8proc-dev libpmix-dev libmicrohttpd-dev"
test_packages="libcmocka-dev libffmpeg-nvenc-dev clang-format clang-tidy sqlite3 ffmpeg
    iproute2 slurm-wlm munge openmpi-bin patchelf"

packages=$build_packages
[ "${1:-build}" = test ] && packages="$packages $test_packages"

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "setup: no apt here; please install what corresponds to:" $packages >&2
    exit 0
fi

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: not root and no sudo; please install:$missing" >&2
        exit 0
    fi
    as_root=sudo
fi
echo "setup: installing$missing"
log=$(mktemp)
# lists that are not to be had anew may still do: one broken source is no reason to stop
$as_root apt-get update -qq >"$log" 2>&1 || true
if $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends $missing >>"$log" 2>&1; then
    rm -f "$log"
    exit 0
fi
tail -n 5 "$log" >&2
rm -f "$log"
echo "setup: apt-get could not install:$missing" >&2
echo "setup: going on; the build says what it does not find" >&2
