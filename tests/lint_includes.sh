#!/bin/sh
# tests/lint_includes.sh [FOLDER] - the include table of docs/architecture.md, checked.
# Prints every line that crosses a border; exit status 1 if there is one.
set -eu
cd "${1:-$(dirname "$0")/..}"

git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.def' | grep -v '^tests/' | xargs awk '
function room_of(path) {
    if (path ~ /^common\/(base|wire|net)\//) { split(path, p, "/"); return p[1] "/" p[2] }
    if (path ~ /^jobs\/(spec|client|dashboard)\//) { split(path, p, "/"); return p[1] "/" p[2] }
    split(path, p, "/"); return p[1]
}
function complain(what) {
    printf "%s:%d: %s\n    %s\n", FILENAME, FNR, what, $0; bad = 1
}
BEGIN {
    allowed["common/net"] = "common/wire"
    allowed["coordinator"] = "common/wire common/net jobs/spec"
    allowed["jobs/client"] = "common/wire common/net jobs/spec"
    allowed["jobs/dashboard"] = "jobs/client common/wire common/net"
    allowed["dataprep"] = "jobs/spec"
    allowed["worker"] = "model dataprep common/wire common/net jobs/spec"
    allowed["slurm"] = "common/wire common/net jobs/spec"
    # library: the only folders whose files may include it
    library["zmq.h"] = "common/net/"
    library["sodium"] = "common/net/"
    library["msgpack"] = "common/wire/"
    library["yaml.h"] = "jobs/spec/"
    library["curses.h"] = "jobs/client/top_curses.c"
    library["ncurses"] = "jobs/client/top_curses.c"
    library["microhttpd"] = "jobs/dashboard/http.c"
    library["sqlite3.h"] = "coordinator/store/ dataprep/dataset/"
    library["libav"] = "dataprep/media/ dataprep/synth/"
    library["libsw"] = "dataprep/media/ dataprep/synth/"
    library["jpeglib"] = "dataprep/media/"
    library["jerror"] = "dataprep/media/"
    library["webp"] = "dataprep/media/"
    library["sentencepiece"] = "dataprep/text/"
    library["pcre2"] = "dataprep/text/regex.c"
    library["utf8proc"] = "dataprep/text/unicode.c"
    library["dnnl"] = "model/backend/cpu/"
    library["oneapi"] = "model/backend/cpu/"
    library["cuda"] = "model/backend/cuda/ model/comm/"
    library["cublas"] = "model/backend/cuda/"
    library["cudnn"] = "model/backend/cuda/"
    library["nccl"] = "model/comm/"
    library["pmix"] = "slurm/node/exchange_pmix"
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\""); target = quoted[2]
    mine = room_of(FILENAME); theirs = room_of(target)
    if (target !~ /\//) complain("includes are written from the root of the repository")
    else if (theirs != mine && theirs != "common/base" &&
             index(" " allowed[mine] " ", " " theirs " ") == 0)
        complain(mine " may not include " theirs)
    else if (mine == "dataprep" && theirs == "jobs/spec" && FILENAME !~ /^dataprep\/(vneva_data|prepare\/from_spec)/)
        complain("only the programs of dataprep and prepare/from_spec may read job specs")
}
/^[ \t]*#[ \t]*include[ \t]*</ {
    split($0, angled, /[<>]/); target = angled[2]
    for (name in library) if (index(target, name) == 1) {
        n = split(library[name], folders, " "); fine = 0
        for (i = 1; i <= n; i++) if (index(FILENAME, folders[i]) == 1) fine = 1
        if (!fine) complain("<" target "> only in " library[name])
    }
}
END { exit bad }
'
