#!/usr/bin/env bash
# Opens the desktop app's window over two real clusters, in a screen and a session
# bus of its own, and uses it as a person does. Needs root, make build and
# tests/guest/build.sh. A picture of the clusters side by side is left in
# tests/results/desktop.png.
set -euo pipefail
cd "$(dirname "$0")/../.."
for need in Xvfb xdotool dbus-run-session import jq; do
	command -v "$need" >/dev/null || { echo "desktop: $need is not installed; run make deps" >&2; exit 1; }
done
dir=$(mktemp -d /var/tmp/dsd-XXXXXX)
chmod 711 "$dir"
screen=
cleanup() {
	[ -z "$screen" ] || kill "$screen" 2>/dev/null || true
	bin/drystone dev down --dir "$dir/oslo" || true
	bin/drystone dev down --dir "$dir/bergen" || true
	rm -rf "$dir"
}
trap cleanup EXIT

up() { # NAME NODES BASE: a cluster with a guest that uses its disk
	local name=$1
	bin/drystone dev up --dir "$dir/$name" --name "$name" --nodes "$2" --disks 2 --disk-size 2G --base "$3" --accel tcg
	bin/drystone --dir "$dir/$name" vm create "$name-db" --cpus 1 --memory 192M --disk 1G \
		--kernel bin/guest/vmlinuz --initrd bin/guest/initrd.img \
		--append "console=ttyS0 quiet verifier.rate=200 verifier.area=128M"
	bin/drystone --dir "$dir/$name" vm start "$name-db"
}
up oslo 3 127.0.221 &
first=$!
up bergen 2 127.0.222
wait "$first"

# The server chooses a free display and says which.
mkfifo "$dir/display"
Xvfb -displayfd 3 -screen 0 1360x860x24 -nolisten tcp 3>"$dir/display" >/dev/null 2>&1 &
screen=$!
read -r display <"$dir/display"

mkdir -p "$dir/home" tests/results
printf 'moss on the north side\n' >"$dir/passphrase"
chmod 600 "$dir/passphrase"
go test -c -o "$dir/desktop.test" ./tests/desktop
export DISPLAY=:$display DRYSTONE_DESKTOP_TEST=$dir
# The locale is the one under which the page once stayed blank.
timeout 300 env -C tests/desktop -u WAYLAND_DISPLAY HOME="$dir/home" XDG_RUNTIME_DIR="$dir/home" LC_ALL=C \
	dbus-run-session -- "$dir/desktop.test" -test.v 2>"$dir/session.log" ||
	{ tail -n 200 "$dir/session.log" "$dir/app.log" >&2; exit 1; }
