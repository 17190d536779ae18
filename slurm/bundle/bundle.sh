#!/bin/sh
# slurm/bundle/bundle.sh BIN OUT VERSION - makes OUT/vneva-VERSION-linux-MACHINE.tar.gz
#
# The programs of the folder BIN and every library they need, but those of glibc and of the
# GPU's driver, which belong to the machine that runs them; licences and a README. Unpacked
# anywhere, bin/vneva runs. `cmake --build build --target bundle` calls this. Wants patchelf,
# strip, ldd, cc, and dpkg for the licences.
set -eu
bin=$(cd "$1" && pwd)
out=$2
version=$3
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
machine=$(uname -m)
name=vneva-$version-linux-$machine
most_bytes=80000000

die() { echo "bundle: $*" >&2; exit 1; }
for tool in patchelf strip ldd cc; do
    command -v $tool >/dev/null || die "there is no '$tool' here: sh jobs/setup.sh installs it"
done
mkdir -p "$out"
work=$(mktemp -d "$out/bundle-XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root/bin" "$root/lib" "$root/licences" "$root/share/examples"

# ---- programs ----

programs='vneva vneva-coordinator vneva-worker vneva-rank vneva-decode vneva-data vneva-model
    vneva-generate vneva-node vneva-launch vneva-dashboard'
for program in $programs; do
    [ -x "$bin/$program" ] || die "there is no '$bin/$program': build everything first"
    cp "$bin/$program" "$root/bin/"
done
# plugins lie beside the programs and are opened at run time
for plugin in "$bin"/*.so; do
    if [ -e "$plugin" ]; then cp "$plugin" "$root/bin/"; fi
done

# ---- libraries ----

# glibc's own, and the loader: they come with the system, in one version for all programs.
# The driver's, too: it must be the one of the kernel's module. What CUDA has beside it is
# large (NVIDIA's cuBLAS alone is larger than all of this) and is installed with CUDA.
of_system='ld-linux*|linux-vdso*|libc.so.*|libm.so.*|libmvec.so.*|libpthread.so.*|libdl.so.*|
    librt.so.*|libresolv.so.*|libutil.so.*|libanl.so.*|libnsl.so.*|libnss_*|libthread_db.so.*|
    libBrokenLocale.so.*|libcuda.so.*|libnvidia-*|libcudart.so.*|libcublas*|libcudnn*|libnccl.so.*'
of_system=$(echo "$of_system" | tr -d ' \n')

ldd "$root"/bin/* >"$work/ldd"
if grep 'not found' "$work/ldd" | grep -vE 'libcud|libcublas|libnccl|libnvidia'; then
    die "libraries are missing on this machine"
fi
awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' "$work/ldd" | sort -u >"$work/all"
while read -r soname path; do
    eval "case \$soname in $of_system) continue ;; esac"
    cp -L "$path" "$root/lib/$soname"
    echo "$soname $path" >>"$work/libraries"
done <"$work/all"

# ICU's data, 31 MB, only serve to read texts in old encodings (in DASH manifests and SVG
# pictures, which vneva does not open). ICU's own way to go without is a library of the same
# name with an empty table.
for soname in $(cd "$root/lib" && ls | grep '^libicudata\.so\.' || true); do
    symbol=$(nm -D --defined-only "$root/lib/$soname" | awk '$3 ~ /^icudt[0-9]+_dat$/ { print $3 }')
    [ -n "$symbol" ] || die "no table in $soname"
    cc -O2 -shared -fPIC -nostdlib -DICU_TABLE="$symbol" -Wl,-soname,"$soname" \
        -o "$root/lib/$soname" "$here/icudata.c"
done

chmod u+w "$root"/bin/* "$root"/lib/*
strip --strip-unneeded "$root"/bin/* "$root"/lib/*
chmod 755 "$root"/bin/* "$root"/lib/*
# by RUNPATH: only what these files need themselves is looked for here, not what a library
# of the machine (PMIx, CUDA) needs
for file in "$root"/bin/*; do patchelf --set-rpath '$ORIGIN/../lib' "$file"; done
for file in "$root"/lib/*; do patchelf --set-rpath '$ORIGIN' "$file"; done

# ---- licences ----

cp "$source/LICENSE" "$root/licences/vneva"
# dpkg knows a file by one of the names that links of folders and files give it
while read -r soname path; do
    real=$(readlink -f "$path")
    for try in "$path" "$real" "${path#/usr}" "${real#/usr}"; do echo "$soname $try"; done
done <"$work/libraries" >"$work/names"
cut -d ' ' -f 2 "$work/names" | sort -u | xargs dpkg -S 2>/dev/null >"$work/owners" || true
while read -r soname path; do
    package=$(awk -v soname="$soname" '
        NR == FNR { split($1, name, ":"); owner[$2] = name[1]; next }
        $1 == soname && owner[$2] { print owner[$2]; exit }' "$work/owners" "$work/names")
    [ -n "$package" ] || die "no package owns '$path': its licence is not known"
    echo "$soname $package"
done <"$work/libraries" >"$work/packages"
for package in $(cut -d ' ' -f 2 "$work/packages" | sort -u); do
    copyright=/usr/share/doc/$package/copyright
    [ -r "$copyright" ] || die "'$copyright' is not here: where is its licence?"
    cp -L "$copyright" "$root/licences/$package"
done
cut -d ' ' -f 2 "$work/packages" | sort -u |
    xargs dpkg-query -W -f '${Package} ${source:Package} ${source:Version}\n' >"$work/sources"
awk 'NR == FNR { source[$1] = $2 " " $3; next }
    { print "lib/" $1 ": " $2 ", source " source[$2] }' "$work/sources" "$work/packages" \
    >"$root/licences/LIBRARIES"
mkdir "$root/licences/common"
cp -L /usr/share/common-licenses/* "$root/licences/common/"

# ---- the rest ----

cp "$source"/jobs/examples/*.yaml "$source/slurm/vneva.sbatch" "$root/share/examples/"
cp "$source/CHANGELOG.md" "$root/"
sed "s/@VERSION@/$version/g" "$here/README.in" >"$root/README"
tar --sort=name --mtime="@${SOURCE_DATE_EPOCH:-$(date +%s)}" --owner=0 --group=0 \
    --numeric-owner -C "$work" -cf - "$name" | gzip -9n >"$work/$name.tar.gz"
bytes=$(wc -c <"$work/$name.tar.gz")
[ "$bytes" -le $most_bytes ] || die "$name.tar.gz has $bytes bytes, more than $most_bytes"
mv "$work/$name.tar.gz" "$out/"
echo "$out/$name.tar.gz: $((bytes / 1000000)) MB, $(wc -l <"$work/libraries") libraries"
