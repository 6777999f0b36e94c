#!/bin/bash
# The test of the units under a real systemd: boots a Debian root file system in
# systemd-nspawn four times, and installs, uses and removes nodeprov inside.
set -Eeuo pipefail
shopt -s inherit_errexit
trap 'echo "test-nspawn: line $LINENO: $BASH_COMMAND: status $?" >&2' ERR

usage() {
	cat <<'U'
usage: nspawn.sh [--bin DIR] [--cache DIR] [--timeout SECONDS] [--help]
  --bin DIR          where nodeprov and lbd are (default: bin of the repository)
  --cache DIR        for the Debian root file system and the logs (default: .cache/images)
  --timeout SECONDS  of each boot (default: 180)

Must be run as root. The machine stays as it is: the container has namespaces, a
cgroup and a file system of its own. Logs stay in CACHE/nspawn. Exit status 0 if every
test passed.
U
}

here=$(cd "$(dirname "$0")" && pwd)
images=$here/../images

# boot TREE WORK LIMIT: one boot. systemd-nspawn ends with 133 if the system inside wants to reboot.
boot() {
	local tree=$1 work=$2 limit=$3
	# The container's cgroups are made below the one it is started in.
	(
		echo $BASHPID >"$cgroup/cgroup.procs"
		# The whole of cgroup2, whatever this machine has; nothing of /proc/sys but the network's.
		export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
		exec timeout --foreground -k 5 "$limit" systemd-nspawn --quiet --register=no --keep-unit -M "$machine" -D "$tree" --boot \
			--private-network --resolv-conf=off --timezone=off --link-journal=no \
			--capability=all --system-call-filter='@known' \
			--bind-ro="$work/test:/test" --bind="$work/out:/out" --console=pipe </dev/null
	) >>"$work/console.log" 2>&1
}

cleanup() {
	local d
	for d in "$cgroup" "/sys/fs/cgroup/systemd/$machine"; do
		[[ ! -d $d ]] || find "$d" -depth -type d -exec rmdir {} +
	done
	rm -rf "$work"
}

main() {
	local bin=$here/../bin cache=$here/../.cache/images limit=180
	while (($#)); do
		case $1 in
		--bin) bin=$2 && shift ;;
		--cache) cache=$2 && shift ;;
		--timeout) limit=$2 && shift ;;
		--help | -h) usage && return ;;
		*) usage >&2 && return 64 ;;
		esac
		shift
	done
	if [[ ! -x $bin/nodeprov || ! -x $bin/lbd ]]; then
		echo "test-nspawn: no $bin/nodeprov or $bin/lbd (run make build)" >&2
		return 1
	fi
	local tar start=$SECONDS
	mkdir -p "$cache"
	cache=$(cd "$cache" && pwd)
	tar=$("$images/rootfs.sh" --cache "$cache")
	work=$(mktemp -d "$cache/nspawn.XXXXXX")
	machine=nodeprov-$$
	cgroup=/sys/fs/cgroup/unified/$machine
	[[ -e /sys/fs/cgroup/unified/cgroup.procs ]] || cgroup=/sys/fs/cgroup/$machine
	trap cleanup EXIT
	mkdir "$cgroup" "$work/test" "$work/out" "$work/tree"
	# Kernels and their modules have no use here, and are most of it.
	tar --numeric-owner --xattrs --xattrs-include='*' -C "$work/tree" -xpf "$tar" --exclude='./boot/*' --exclude='./usr/lib/modules/*' --exclude='./lib/modules/*'
	cp -r "$here/nspawn/overlay/." "$work/tree"
	# What a machine has of its own, not made by the first boot: it would be found as left behind.
	echo 0123456789abcdef0123456789abcdef >"$work/tree/etc/machine-id"
	systemctl --quiet --root="$work/tree" enable np0.service irqbalance.service nodeprov-test.service
	systemctl --quiet --root="$work/tree" mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
		fstrim.timer cloud-init-local.service cloud-init.service cloud-config.service cloud-final.service \
		systemd-timesyncd.service console-getty.service
	systemctl --quiet --root="$work/tree" set-default multi-user.target
	cp "$bin/nodeprov" "$bin/lbd" "$images/test/tap.sh" "$here"/nspawn/*.sh "$here"/nspawn/*.hcl "$work/test"
	local built=$SECONDS rc=133 boots=0
	while ((rc == 133 && boots < 5)); do
		rc=0
		boots=$((boots + 1))
		boot "$work/tree" "$work" "$limit" || rc=$?
	done

	local result=$cache/nspawn/result.log passed failed
	rm -rf "$cache/nspawn"
	mv "$work/out" "$cache/nspawn"
	mv "$work/console.log" "$cache/nspawn"
	touch "$result"
	passed=$(grep -c '^ok ' "$result" || true)
	failed=$(grep -c '^not ok ' "$result" || true)
	if ((failed)); then
		echo "test-nspawn: failed:"
		grep '^not ok ' "$result" | sed 's/^/  /'
	fi
	echo "test-nspawn: $passed passed, $failed failed, $boots boots; tree $((built - start)) s, boots $((SECONDS - built)) s; logs in $cache/nspawn"
	# All must agree, lest a test that ended early pass for one that passed.
	((rc == 0 && failed == 0 && passed > 0)) && [[ $(tail -n 1 "$result") == 'END ok' ]]
}

main "$@"
