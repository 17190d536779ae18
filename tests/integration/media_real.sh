#!/bin/sh
# Every sampled frame of the quickstart's real videos equals that of a plain decode of the
# whole file. The videos come from Debian packages; where they cannot be had this is a skip.
#   media_real.sh MEDIA_EXACT VIDEOS_FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/../../jobs/quickstart/fetch_videos.sh" "$2" || exit 77
exec "$1" "$2"/*
