#!/usr/bin/env bash
# make demo: a three-node cluster on this machine with a running guest. The
# cluster stays up; make demo-down removes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1
if ((EUID != 0)); then
	echo "demo: a cluster with guests needs root (mount namespaces, libvirt)" >&2
	exit 1
fi
export DRYSTONE_DIR=$dir
if [ -e "$dir/cluster.json" ]; then
	echo "demo: there is a cluster in $dir already; run make demo-down first" >&2
	exit 1
fi

guest=bin/guest
tests/guest/build.sh "$guest"

bin/drystone dev up --nodes 3 --dir "$dir" --disks 2 --disk-size 8G --accel tcg
bin/drystone vm create demo --cpus 1 --memory 256M --disk 4G \
	--kernel "$guest/vmlinuz" --initrd "$guest/initrd.img" \
	--append "console=ttyS0 quiet verifier.rate=300 verifier.area=256M"
bin/drystone vm start demo

echo "demo: waiting for the guest's first verified blocks"
for _ in $(seq 120); do
	said=$(timeout 5 bin/drystone vm console demo --serial </dev/null 2>/dev/null || true)
	if grep -q '^verified' <<<"$said"; then
		ready=1
		break
	fi
	sleep 1
done
bin/drystone vm list
if [ -z "${ready:-}" ]; then
	echo "demo: the guest did not report a verified block within two minutes" >&2
	exit 1
fi
cat <<-EOF

	The cluster is up and stays up (make demo-down removes it).

	  web page   $(jq -r .api "$dir/cluster.json")
	  user       $(jq -r .user "$dir/cluster.json")
	  password   $(jq -r .password "$dir/cluster.json")

	Its certificate is signed by the cluster's own authority: $(jq -r .ca "$dir/cluster.json")
	Try:  export DRYSTONE_DIR=$dir;  bin/drystone status;  bin/drystone volume show demo-disk1
EOF
