#!/bin/sh
# keep_registers.sh COMPILER ... -o OBJECT ...: runs the compiler; what ptxas says of each
# kernel (-Xptxas -v) is kept beside the object, for tests/cuda_registers.sh.
set -u
object=
before=
for word in "$@"; do
    [ "$before" = -o ] && object=$word
    before=$word
done
"$@" 2>"$object.ptxas"
rc=$?
grep -vE '^(ptxas info|    [0-9]+ bytes)' "$object.ptxas" >&2
exit $rc
