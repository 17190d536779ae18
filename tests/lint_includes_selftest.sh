#!/bin/sh
# The include lint must see a border crossed: plants one of each kind and expects it named.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
git init -q .
mkdir -p model coordinator dataprep/text jobs/client jobs/dashboard
plant() { # FILE LINE EXPECTED
    printf '%s\n' "$2" >"$1"
    git add -A
    if sh "$here/lint_includes.sh" . >out; then
        echo "not seen: $2 in $1"; exit 1
    fi
    grep -q "$3" out || { echo "wrong words for $1:"; cat out; exit 1; }
    : >"$1"
}
plant model/a.c '#include "worker/rank/x.h"' 'model may not include worker'
plant model/a.c '#include <zmq.h>' 'only in common/net/'
plant coordinator/a.c '#include <sqlite3.h>' 'only in coordinator/store/'
plant jobs/client/a.c '#include "jobs/dashboard/http.h"' 'jobs/client may not include jobs/dashboard'
plant jobs/dashboard/a.c '#include <microhttpd.h>' 'only in jobs/dashboard/http.c'
plant dataprep/text/a.c '#include "jobs/spec/spec.h"' 'only the programs'
plant model/a.c '#include "tensor.h"' 'from the root'
printf '#include "common/base/err.h"\n#include "model/tensor.h"\n' >model/a.c
git add -A
sh "$here/lint_includes.sh" .
