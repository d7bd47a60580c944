#!/bin/sh
# Builds the judging guest: the demo guest with fio, mkfs and fsx in it, and a first
# program that lets them judge its disks. Needs what the demo guest needs, and fio,
# e2fsprogs and xfsprogs.
#
#   tests/guest/judge/build.sh OUTDIR    makes OUTDIR/vmlinuz and OUTDIR/initrd.img
set -eu

here=$(cd "$(dirname "$0")" && pwd)
over=$(mktemp -d)
trap 'rm -rf "$over"' EXIT
mkdir -p "$over/judge"
cp "$here/init" "$over/init"
chmod 755 "$over" "$over/init"

# take PROGRAM PACKAGE copies a program and the libraries it is linked with.
take() {
	path=$(command -v "$1") || {
		echo "$0: there is no $1; install the package $2" >&2
		exit 1
	}
	cp -L "$path" "$over/judge/$1"
	for lib in $(ldd "$path" | grep -o '/[^ ]*'); do
		mkdir -p "$over${lib%/*}"
		cp -Lu "$lib" "$over$lib"
	done
}
take fio fio
take mke2fs e2fsprogs
take mkfs.xfs xfsprogs
(cd "$here/.." && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 \
	go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$over/judge/fsx" ./fsx)

"$here/../build.sh" "$1" "$over" xfs
