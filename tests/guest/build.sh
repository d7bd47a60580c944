#!/bin/sh
# Builds the demo guest: Debian's cloud kernel and an initramfs with busybox and
# the verifier. Needs linux-image-cloud-amd64, busybox-static, cpio, zstd and go.
#
#   tests/guest/build.sh OUTDIR    makes OUTDIR/vmlinuz and OUTDIR/initrd.img
#   tests/guest/build.sh OUTDIR OVER [MODULE...]
#                                  with the files of the folder OVER, which go before
#                                  others, and more modules; packed in a hurry
#
# The same inputs make the same bytes.
set -eu

if [ $# -lt 1 ]; then
	echo "usage: $0 OUTDIR [OVER [MODULE...]]" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
over=${2:-}
level=${over:+1}
shift $(($# > 1 ? 2 : 1))
more="$*"

missing() {
	echo "$0: $1; install the package $2" >&2
	exit 1
}
command -v cpio > /dev/null || missing "there is no cpio" cpio
command -v zstd > /dev/null || missing "there is no zstd" zstd
busybox=$(command -v busybox) || missing "there is no busybox" busybox-static
kernel=
for k in /boot/vmlinuz-*-cloud-amd64; do
	[ -r "$k" ] && kernel=$k # the last, which is the newest
done
[ -n "$kernel" ] || missing "there is no cloud kernel in /boot" linux-image-cloud-amd64
modules=/lib/modules/${kernel#/boot/vmlinuz-}
[ -r "$modules/modules.dep" ] || missing "$modules is not there" linux-image-cloud-amd64

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/modules" "$root/etc/acpi/PWRF"
cp "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/init" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
(cd "$here" && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 \
	go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$root/bin/verifier" ./verifier)

# add MODULE copies a module after everything it needs, once, and notes the order.
add() {
	line=$(grep -E "(^|/)$1\.ko:" "$modules/modules.dep") || missing "no module $1" "another kernel"
	set -- $(echo "$line" | tr -d ':' | tr ' ' '\n' | tac)
	for path in "$@"; do
		name=${path##*/}
		[ -e "$root/modules/$name" ] && continue
		cp "$modules/$path" "$root/modules/$name"
		echo "$name" >> "$root/modules/order"
	done
}
# shellcheck disable=SC2086 # names, without spaces
for module in virtio_pci virtio_blk virtio_balloon virtio-rng button evdev virtio_net virtio_scsi sr_mod isofs efivarfs $more; do
	add "$module"
done
[ -z "$over" ] || cp -R "$over/." "$root/"

find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) |
	zstd -q "-${level:-19}" -T1 -f -o "$out/initrd.img.new"
cp "$kernel" "$out/vmlinuz.new"
chmod 644 "$out/vmlinuz.new" "$out/initrd.img.new"
mv "$out/vmlinuz.new" "$out/vmlinuz"
mv "$out/initrd.img.new" "$out/initrd.img"
