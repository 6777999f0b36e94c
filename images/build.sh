#!/bin/bash
# Builds the node image: Debian, cloud-init, nodeprov and lbd. Made of files
# only, without loop devices, so that it runs in a container too.
set -Eeuo pipefail
shopt -s inherit_errexit
trap 'echo "image: line $LINENO: $BASH_COMMAND: status $?" >&2' ERR

usage() {
	cat <<'U'
usage: build.sh [--test] [--bin DIR] [--cache DIR] [--out DIR] [--size SIZE] [--refresh] [--help]
  --test       the boot test's image: an agent that runs a test is added, and
               root logs in on the console without a password. Never ship it.
  --bin DIR    where nodeprov and lbd are (default: bin of the repository)
  --cache DIR  where the Debian root file system is kept (default: .cache/images)
  --out DIR    where the image goes (default: images/out/node, images/out/test)
  --size SIZE  of the disk; cloud-init grows the file system to a larger disk (default: 2G)
  --refresh    take newer Debian packages

Writes DIR/disk.img (raw ext4, without partitions), DIR/vmlinuz and DIR/initrd.img.
Must be run as root, for the owners of files.
U
}

here=$(cd "$(dirname "$0")" && pwd)

install_node() { # install_node TREE BIN
	local tree=$1 bin=$2
	cp -r "$here/overlay/." "$tree"
	"$bin/nodeprov" install --root "$tree" --lbd "$bin/lbd"
	# cloud-init writes the network's configuration for networkd.
	systemctl --quiet --root="$tree" enable systemd-networkd.service
	systemctl --quiet --root="$tree" set-default multi-user.target
	# Direct boot and a file system without partitions: nothing else is to be mounted.
	echo 'LABEL=nodeprov / ext4 defaults,noatime 0 1' >"$tree/etc/fstab"
	echo localhost >"$tree/etc/hostname" # cloud-init sets the node's own
}

# clean takes away what must be each machine's own, and what only the build knew.
clean() { # clean TREE
	local tree=$1
	: >"$tree/etc/machine-id" # empty: systemd makes one at the first boot
	rm -f "$tree/var/lib/dbus/machine-id" "$tree/etc/resolv.conf" "$tree"/etc/ssh/ssh_host_* \
		"$tree/var/lib/systemd/random-seed"
	find "$tree/var/log" -type f -delete
	# The builder's mirrors; the overlay has brought Debian's.
	find "$tree/etc/apt" -name '*.list' -delete
	rm -rf "$tree/var/lib/apt/lists" "$tree/var/cache/apt" "$tree/tmp" "$tree/var/tmp"
	mkdir -p "$tree/var/lib/apt/lists/partial" "$tree/var/cache/apt/archives/partial"
	mkdir -m 1777 "$tree/tmp" "$tree/var/tmp"
	passwd --quiet --root "$tree" --lock root
}

# check holds the tree to what clean promised, whatever was installed since.
check() { # check TREE
	local tree=$1 bad
	bad=$(
		find "$tree/etc/machine-id" -size +0 -printf 'machine-id is set\n'
		awk -F: '$2 == "" { print "no password: " $1 }' "$tree/etc/shadow"
		awk -F: '$2 ~ /^\$/ { print "password set: " $1 }' "$tree/etc/shadow"
		find "$tree/etc" -name 'ssh_host_*' -printf 'host key: %p\n'
		find "$tree/var/log" -type f -printf 'log: %p\n'
		find "$tree/etc/apt" -name '*.list' -printf "builder's apt source: %p\n"
		find "$tree/var/lib" -path '*/cloud/instance*' -prune -printf 'cloud-init has run: %p\n'
	)
	if [[ -n $bad ]]; then
		echo "image not clean:" >&2
		printf '  %s\n' "$bad" >&2
		return 1
	fi
}

install_test() { # install_test TREE
	local tree=$1
	cp -r "$here/test/overlay/." "$tree"
	passwd --quiet --root "$tree" --delete root
	systemctl --quiet --root="$tree" enable nodeprov-test.service nodeprov-test-stuck.timer
	# What costs seconds without hardware virtualisation and is not under test.
	systemctl --quiet --root="$tree" mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
		e2scrub_reap.service e2scrub_all.timer fstrim.timer getty@tty1.service serial-getty@ttyS0.service \
		modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service modprobe@loop.service \
		modprobe@fuse.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
		cloud-init-hotplugd.socket
}

main() {
	local variant=node bin=$here/../bin cache=$here/../.cache/images out='' size=2G refresh=()
	while (($#)); do
		case $1 in
		--test) variant='test' ;;
		--bin) bin=$2 && shift ;;
		--cache) cache=$2 && shift ;;
		--out) out=$2 && shift ;;
		--size) size=$2 && shift ;;
		--refresh) refresh=(--refresh) ;;
		--help | -h) usage && return ;;
		*) usage >&2 && return 64 ;;
		esac
		shift
	done
	out=${out:-$here/out/$variant}
	PATH=$PATH:/usr/sbin:/sbin
	local f
	for f in nodeprov lbd; do
		if [[ ! -x $bin/$f ]]; then
			echo "image: no $bin/$f (run make build)" >&2
			return 1
		fi
	done
	local start=$SECONDS tar tree
	mkdir -p "$cache" "$out"
	cache=$(cd "$cache" && pwd) # systemctl --root takes no ".."
	tar=$("$here/rootfs.sh" --cache "$cache" "${refresh[@]}")
	tree=$(mktemp -d "$cache/tree.XXXXXX")
	# shellcheck disable=SC2064 # the directory of now
	trap "rm -rf '$tree'" EXIT
	chmod 755 "$tree" # it becomes the image's /
	tar --numeric-owner --xattrs --xattrs-include='*' -C "$tree" -xpf "$tar"
	install_node "$tree" "$bin"
	clean "$tree"
	check "$tree"
	if [[ $variant == test ]]; then
		install_test "$tree"
	fi

	cp "$tree"/boot/vmlinuz-* "$out/vmlinuz"
	cp "$tree"/boot/initrd.img-* "$out/initrd.img"
	rm -f "$out/disk.img.new"
	truncate -s "$size" "$out/disk.img.new"
	mke2fs -q -t ext4 -L nodeprov -E lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0 \
		-d "$tree" "$out/disk.img.new"
	mv "$out/disk.img.new" "$out/disk.img"
	echo "image: $out ($(du -h "$out/disk.img" | cut -f1)), $((SECONDS - start)) s"
}

main "$@"
