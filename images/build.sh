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
               root logs in on the console without a password; it has two kernels,
               and GRUB. Never ship it.
  --bin DIR    where nodeprov and lbd are (default: bin of the repository)
  --cache DIR  where the Debian root file system is kept (default: .cache/images)
  --out DIR    where the image goes (default: images/out/node, images/out/test)
  --size SIZE  of the disk; cloud-init grows the file system to a larger disk (default: 2G)
  --refresh    take newer Debian packages

Writes DIR/disk.img (raw ext4, without partitions), DIR/vmlinuz and DIR/initrd.img;
with --test DIR/vmlinuz-6.1, DIR/initrd-6.1.img, and DIR/grub-6.1.img, a disk that
boots by itself (BIOS, one partition), and the same for each other kernel. Must be run as root, for the owners of files.
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
	# GRUB as on a machine with a serial console and nobody who sits at it.
	mkdir -p "$tree/etc/default/grub.d"
	cat >"$tree/etc/default/grub.d/10-test.cfg" <<-G
		GRUB_TIMEOUT=0
		GRUB_TERMINAL=serial
		GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
		GRUB_CMDLINE_LINUX_DEFAULT="$(<"$here/test/cmdline")"
	G
	systemctl --quiet --root="$tree" enable nodeprov-test.service nodeprov-test-boot.service nodeprov-test-stuck.timer
	# What costs seconds without hardware virtualisation and is not under test.
	systemctl --quiet --root="$tree" mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
		e2scrub_reap.service e2scrub_all.timer fstrim.timer getty@tty1.service serial-getty@ttyS0.service \
		modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service modprobe@loop.service \
		modprobe@fuse.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
		cloud-init-hotplugd.socket
}

# kernels TREE: the releases of the tree's kernels.
kernels() { (cd "$1/usr/lib/modules" && printf '%s\n' *); }

# version RELEASE: 6.1.0-56-cloud-amd64 is 6.1.
version() { cut -d. -f1,2 <<<"$1"; }

# pack TREE IMAGE SIZE [OFFSET]: makes a file system of the tree, at that many bytes into
# the image. GRUB 2.06 reads none whose checksums have a seed of their own.
pack() {
	local tree=$1 image=$2 size=$3 offset=${4:-0}
	truncate -s "$size" "$image"
	mke2fs -q -t ext4 -L nodeprov -E "offset=$offset,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0" \
		-O ^metadata_csum_seed -d "$tree" "$image" $((($(stat -c %s "$image") - offset) / 1024))k
}

# pack_grub TREE IMAGE SIZE RELEASE: the disk as grub-install would have left it, with the
# one kernel. GRUB's tools need to see the disk that they work on, and a loop device for it; so
# its first stages are written where they belong: boot.img in the first sector, the core
# image behind it, up to the partition at 1 MiB. From the first update-grub on, the
# configuration is Debian's own.
pack_grub() {
	local tree=$1 image=$2 size=$3 release=$4 grub=/usr/lib/grub/i386-pc aside other
	mkdir -p "$tree/boot/grub/i386-pc"
	cp "$tree$grub"/*.mod "$tree$grub"/*.lst "$tree/boot/grub/i386-pc"
	cat >"$tree/boot/grub/grub.cfg" <<-G
		serial --unit=0 --speed=115200
		terminal_output serial
		linux /boot/vmlinuz-$release root=LABEL=nodeprov rw $(<"$here/test/cmdline")
		initrd /boot/initrd.img-$release
		boot
	G
	chroot "$tree" grub-mkimage -d $grub -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /tmp/core.img \
		biosdisk part_msdos ext2 normal linux configfile serial terminal test
	mv "$tree/tmp/core.img" "$image.core"
	aside=$(mktemp -d "$tree.XXXXXX")
	for other in $(kernels "$tree"); do
		if [[ $other != "$release" ]]; then
			mkdir -p "$aside/boot" "$aside/usr/lib/modules"
			mv "$tree"/boot/*-"$other" "$aside/boot"
			mv "$tree/usr/lib/modules/$other" "$aside/usr/lib/modules"
		fi
	done
	pack "$tree" "$image" "$size" $((1 << 20))
	cp -a --no-target-directory "$aside" "$tree"
	rm -r "$aside"
	dd if="$tree$grub/boot.img" of="$image" bs=440 count=1 conv=notrunc status=none
	dd if="$image.core" of="$image" bs=512 seek=1 conv=notrunc status=none
	rm "$image.core"
	echo '2048,,L,*' | sfdisk --quiet --no-reread --no-tell-kernel --label dos --wipe never --wipe-partitions never "$image" >/dev/null
}

main() {
	local variant=node bin=$here/../bin cache=$here/../.cache/images out='' size=2G options=()
	while (($#)); do
		case $1 in
		--test) variant='test' && options+=(--test) ;;
		--bin) bin=$2 && shift ;;
		--cache) cache=$2 && shift ;;
		--out) out=$2 && shift ;;
		--size) size=$2 && shift ;;
		--refresh) options+=(--refresh) ;;
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
	tar=$("$here/rootfs.sh" --cache "$cache" "${options[@]}")
	tree=$(mktemp -d "$cache/tree.XXXXXX")
	# shellcheck disable=SC2064 # the directory of now
	trap "rm -rf '$tree'*" EXIT
	chmod 755 "$tree" # it becomes the image's /
	tar --numeric-owner --xattrs --xattrs-include='*' -C "$tree" -xpf "$tar"
	install_node "$tree" "$bin"
	clean "$tree"
	check "$tree"
	if [[ $variant == test ]]; then
		install_test "$tree"
	fi

	pack "$tree" "$tree.img" "$size"
	mv "$tree.img" "$out/disk.img"
	local release suffix=''
	for release in $(kernels "$tree"); do
		if [[ $variant == test ]]; then
			suffix=-$(version "$release")
			pack_grub "$tree" "$tree.img" "$size" "$release"
			mv "$tree.img" "$out/grub$suffix.img"
		fi
		cp "$tree/boot/vmlinuz-$release" "$out/vmlinuz$suffix"
		cp "$tree/boot/initrd.img-$release" "$out/initrd$suffix.img"
	done
	echo "image: $out ($(du -h "$out/disk.img" | cut -f1)), $((SECONDS - start)) s"
}

main "$@"
