#!/bin/bash
# The whole path on this machine's kernel, in a sandbox that ends with this
# script: namespaces for the node, a pod and the backends; a cgroup and a bpffs of
# its own; the root file system and everything of /proc and /sys that is not the
# namespace's own are read-only. It prints each command that it runs, and fails
# with the first thing that is not as it should be.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd)

main() {
	if ((EUID != 0)); then
		echo "sandbox: it makes namespaces and loads BPF programs: run it as root" >&2
		exit 1
	fi
	local cg before rc=0
	cg=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
	if [[ -z $cg ]]; then
		echo "sandbox: no cgroup2 hierarchy is mounted (boot with systemd.unified_cgroup_hierarchy=1)" >&2
		exit 1
	fi
	cg+=/nodeprov-sandbox-$$
	mkdir "$cg"
	before=$(machine)
	# The cgroup becomes the root of a cgroup namespace: lbd cannot attach above it.
	(
		echo "$BASHPID" >"$cg/cgroup.procs"
		exec unshare --cgroup --mount --net --uts --ipc --pid --fork --kill-child --propagation private \
			"$0" --inside
	) || rc=$?
	find "$cg" -depth -type d -exec rmdir {} +
	((rc == 0)) || exit "$rc"
	say "This machine, outside of the sandbox"
	if ! diff <(echo "$before") <(machine); then
		echo "sandbox: the machine's own settings changed (see above)" >&2
		exit 1
	fi
	echo "All $(wc -l <<<"$before") settings of its kernel and links are what they were."
}

# machine prints the settings that a mistake in here could reach, without those
# that the kernel counts by itself.
machine() {
	settings /proc/sys
	ip -o link | sed 's/^[0-9]*: //; s/ state .*//'
	ls /sys/fs/bpf 2>/dev/null || true
	ls -d /etc/lbd /etc/nodeprov /var/lib/lbd /var/lib/nodeprov 2>/dev/null || true
}

# links are the devices with all that a profile sets of them.
links() {
	ip -o link | sed 's/ state .*//'
	tc qdisc show | sed 's/qdisc \([a-z_]*\) [0-9a-f]*:/qdisc \1/; s/parent [0-9a-f]*:/parent :/'
	grep -sH '' /sys/class/net/*/queues/*/{rps_cpus,xps_cpus} /sys/class/net/*/{gro_flush_timeout,tx_queue_len} || true
	ip -d -o link show eth0 | tr ' ' '\n' | grep -A1 -E 'g[sr]o_' || true
}

settings() {
	find "$1" -type f -perm -u=r -not -path '*/random/*' -not -name '*-nr' -not -name 'dentry-state' -not -name 'ns_last_pid' \
		-not -name 'nr' -not -name 'nf_conntrack_count' -not -name 'inode-state' -not -name '*_secret' -not -name '*_key' \
		-not -name '*idmap*' -not -name 'tcp_mem' -not -name 'drop_caches' -not -name 'perf_event_max_sample_rate' -print0 | sort -z | xargs -0 grep -sH '' || true
}

inside() {
	confine
	network
	local node=$state/node-before
	settings /proc/sys/net >"$node"
	links >>"$node"

	say "1. A profile"
	run cat /etc/nodeprov/profile.hcl
	run nodeprov validate
	expect 1 nodeprov validate /etc/nodeprov/misspelt.hcl
	run nodeprov plan --out /tmp/plan
	say "2. Applied as planned, verified, applied again"
	run nodeprov apply /tmp/plan
	run nodeprov verify
	run nodeprov apply
	expect 1 nodeprov apply /tmp/plan # it is not what it was made for any more
	say "3. A value broken by hand is found and mended"
	run ip link set eth0 mtu 1400
	run sysctl -w net.ipv4.tcp_slow_start_after_idle=1
	expect 2 nodeprov verify
	run nodeprov apply
	run nodeprov verify
	say "   With nodeprov watch, a device is mended at once"
	show "nodeprov watch &"
	nodeprov watch &
	local watch=$!
	until [[ -e /run/nodeprov/watch.json ]]; do kill -0 "$watch"; done
	run ip link set eth0 mtu 1400
	until [[ $(</sys/class/net/eth0/mtu) == 9000 ]]; do kill -0 "$watch"; done
	run ip link show eth0
	kill "$watch"
	wait "$watch"

	say "4. lbd: two services from files"
	show "lbd run &"
	start_lbd
	run lbd status --wait 20s
	run lbd service list
	say "5. A pod, in its own network namespace and cgroup, reaches the ClusterIPs"
	pod "alpha" probe tcp 10.43.0.10:80
	pod "alpha6" probe tcp '[fd43::10]:80'
	pod "alpha" probe udp 10.43.0.10:80
	pod_refused probe tcp 10.43.0.99:80

	say "6. kill -9 lbd, under load"
	show "nsenter --net=/run/netns/pod probe load 10.43.0.10:80 &"
	in_pod probe load --for 4s 10.43.0.10:80 >"$state/load" &
	local load=$!
	show "kill -9 $lbd"
	kill -9 "$lbd"
	wait "$lbd" 2>/dev/null || true
	expect 1 lbd status
	pod "alpha" probe tcp 10.43.0.10:80
	pod "alpha6" probe tcp '[fd43::10]:80'
	run lbd service list
	show "lbd run &"
	start_lbd
	run lbd status --wait 20s
	wait "$load"
	echo "connections meanwhile: $(<"$state/load")"
	show "kill $lbd"
	kill "$lbd"
	wait "$lbd"

	say "7. Everything back"
	run lbd cleanup
	run nodeprov rollback --to 0
	run nodeprov status
	{ settings /proc/sys/net && links; } >"$state/node-after"
	if ! diff "$node" "$state/node-after"; then
		echo "sandbox: the node is not what it was (see above)" >&2
		exit 1
	fi
	local left
	for left in /etc/lbd/lbd.hcl /etc/motd.d/nodeprov; do
		if [[ -e $left ]]; then
			echo "sandbox: $left was left behind" >&2
			exit 1
		fi
	done
	echo
	echo "All $(wc -l <"$node") settings of the node are what they were."
}

# confine makes everything read-only that is not the sandbox's own.
confine() {
	state=/run/sandbox
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p "$state"/{net,devices,etc,bin} /run/netns
	cp -a /etc/{passwd,group,os-release} "$state/etc/"
	cp -a "$repo"/test/sandbox/etc/. "$state/etc/"
	# The repository may lie below one of the directories that are covered.
	cp -a "$0" "$repo"/bin/{nodeprov,lbd,probe} "$state/bin/"
	mount -o bind,remount,ro /
	mount --bind "$state/etc" /etc
	mount -t tmpfs -o mode=755 tmpfs /var/lib
	mount -t tmpfs tmpfs /tmp

	mount -t proc proc /proc
	# While they are writable:
	mount --bind /proc/sys/net "$state/net"
	mount -o bind,remount,ro /proc
	mount --bind "$state/net" /proc/sys/net
	mount -t sysfs sysfs /sys
	mount --bind /sys/devices/virtual/net "$state/devices" # this namespace's
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t bpf bpf /sys/fs/bpf
	mount -o bind,remount,ro /sys
	mount --bind "$state/devices" /sys/devices/virtual/net
	hostname sandbox
	export PATH=$state/bin:$PATH NO_COLOR=1
}

# network joins the node with a pod and with the backends.
network() {
	local ns
	for ns in pod backends; do
		ip netns add "$ns"
		nsenter --net="/run/netns/$ns" sandbox.sh --no-dad
		ip -n "$ns" link set lo up
	done
	no_dad
	ip link set lo up
	ip link add eth0 numtxqueues 4 numrxqueues 4 type veth peer name eth0 netns backends numtxqueues 4 numrxqueues 4
	ip link add veth-pod type veth peer name eth0 netns pod
	address 10.42.0.1/24 fd42:0::1/64 dev eth0
	address 10.42.1.1/24 fd42:1::1/64 dev veth-pod
	address -n backends 10.42.0.10/24 fd42:0::10/64 dev eth0
	address -n pod 10.42.1.10/24 fd42:1::10/64 dev eth0
	for ns in pod:1 backends:0; do
		ip -n "${ns%:*}" route add default via "10.42.${ns#*:}.1"
		ip -n "${ns%:*}" -6 route add default via "fd42:${ns#*:}::1"
	done
	nsenter --net=/run/netns/backends probe serve 10.42.0.10:8080 alpha '[fd42:0::10]:8080' alpha6 >"$state/backends" &
	local backends=$!
	until grep -qs ready "$state/backends"; do
		kill -0 "$backends" # with the errors of set -e: it has ended
	done
	mkdir /sys/fs/cgroup/pod
}

# no_dad makes IPv6 addresses usable at once: nobody else is on these links.
no_dad() { echo 0 | tee /proc/sys/net/ipv6/conf/{all,default}/accept_dad >/dev/null; }

address() { # [-n NETNS] V4 V6 dev NAME
	local ns=()
	[[ $1 == -n ]] && ns=(-n "$2") && shift 2
	ip "${ns[@]}" address add "$1" dev "$4"
	ip "${ns[@]}" address add "$2" dev "$4" nodad
	ip "${ns[@]}" link set "$4" up
}

start_lbd() {
	lbd run &
	lbd=$!
}

in_pod() { (
	echo "$BASHPID" >/sys/fs/cgroup/pod/cgroup.procs
	exec nsenter --net=/run/netns/pod "$@"
); }

pod() { # WANT COMMAND…
	local want=$1 got
	shift
	show "nsenter --net=/run/netns/pod $*"
	got=$(in_pod "$@")
	echo "$got"
	[[ $got == "$want" ]] || { echo "sandbox: got $got, want $want" >&2 && exit 1; }
}

pod_refused() {
	local got
	show "nsenter --net=/run/netns/pod $*"
	if got=$(in_pod "$@" 2>&1); then
		echo "sandbox: it was answered: $got" >&2
		exit 1
	fi
	echo "$got"
	[[ $got == *ECONNREFUSED* ]] || exit 1
}

run() { expect 0 "$@"; }

expect() { # STATUS COMMAND…
	local want=$1 rc=0
	shift
	show "$*"
	"$@" || rc=$?
	((rc == want)) || { echo "sandbox: exit status $rc, want $want: $*" >&2 && exit 1; }
}

show() { printf '\n$ %s\n' "$*"; }

say() { printf '\n── %s %s\n' "$1" "$(printf '─%.0s' $(seq 1 $((76 - ${#1}))))"; }

case ${1:-} in
--inside) inside ;;
--no-dad) no_dad ;;
"") main ;;
*) echo "usage: sandbox.sh" >&2 && exit 64 ;;
esac
