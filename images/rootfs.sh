#!/bin/bash
# Builds the Debian root file system below every node image, as a tar, and
# prints the tar's path. The tar is kept under a key made of this script and the
# sources, so only a change of either, or --refresh, builds it again.
set -Eeuo pipefail
shopt -s inherit_errexit
trap 'echo "rootfs: line $LINENO: $BASH_COMMAND: status $?" >&2' ERR

usage() {
	cat <<'U'
usage: rootfs.sh [--test] [--cache DIR] [--refresh] [--help]
  --test       with what the boot test needs: a second kernel, GRUB, and tools to
               look at the node with that are not nodeprov's
  --cache DIR  where tars are kept (default: .cache/images of the repository)
  --refresh    build again, to get newer packages

Packages come from this machine's own apt sources for Debian bookworm, with its
apt proxy. Must be run as root: mmdebstrap runs the packages' scripts in a chroot.
U
}

suite=bookworm
here=$(cd "$(dirname "$0")" && pwd)

# What a node needs to boot, to be set up by cloud-init, and to be looked at.
packages=(
	systemd systemd-sysv dbus udev kmod        # boot
	linux-image-cloud-amd64 initramfs-tools lz4
	iproute2 procps e2fsprogs                  # looking at it; growing its disk
	cloud-init
)

# Debian's stable kernel and the newest that is made for the suite; a boot loader
# whose configuration can be changed; a service that moves interrupts around.
test_packages=(linux-image-6.12-cloud-amd64 grub-pc irqbalance ethtool)

# sources prints a sources.list of the host's own Debian mirrors. They are taken from
# what apt has read, and so in whatever form and file they are configured;
# foreign repositories of the host have no place in the image.
sources() {
	# shellcheck disable=SC2016 # apt fills these in
	apt-get indextargets --format \
		'$(ORIGIN) $(CODENAME) deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' |
		awk -v suite=$suite '
			$1 == "Debian" && ($2 == suite || $2 == suite "-updates" || $2 == suite "-security") {
				sub(/^[^ ]+ [^ ]+ /, ""); print
			}' | sort -u
}

build() { # build TAR SOURCES PACKAGE...
	local tar=$1 list=$2 work
	shift 2
	work=$(mktemp -d)
	# shellcheck disable=SC2064 # the directory of now
	trap "rm -rf '$work'" EXIT
	printf '%s\n' "$list" >"$work/sources.list"
	# mmdebstrap gives apt an empty configuration; without the host's proxy it may reach nothing.
	apt-config dump Acquire | grep -E '^Acquire::(https?::|Retries|Check-Valid-Until)' >"$work/apt.conf" || true
	cat >"$work/initramfs.sh" <<'H'
#!/bin/sh
# Only what finds a virtio disk: ext4 is built into Debian's kernel. The default
# of "most" modules costs seconds at every boot and megabytes of image.
set -eu
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=lz4/' "$1/etc/initramfs-tools/initramfs.conf"
printf '%s\n' virtio_pci virtio_blk virtio_scsi sd_mod >"$1/etc/initramfs-tools/modules"
chroot "$1" update-initramfs -u -k all
H
	chmod +x "$work/initramfs.sh"
	mmdebstrap --quiet --mode=root --variant=minbase --format=tar \
		--include="$(IFS=,; echo "$*")" \
		--aptopt="$work/apt.conf" \
		--aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--customize-hook="$work/initramfs.sh" \
		$suite "$tar.new" "$work/sources.list" >&2
	mv "$tar.new" "$tar"
}

main() {
	local cache=$here/../.cache/images refresh='' variant=node
	while (($#)); do
		case $1 in
		--test) variant='test' && packages+=("${test_packages[@]}") ;;
		--cache) cache=$2 && shift ;;
		--refresh) refresh=1 ;;
		--help | -h) usage && return ;;
		*) usage >&2 && return 64 ;;
		esac
		shift
	done
	if ((EUID != 0)); then
		echo "rootfs: must be root (mmdebstrap runs maintainer scripts in a chroot)" >&2
		return 1
	fi
	"$here/packages.sh" >&2
	local list key tar
	list=$(sources)
	if [[ -z $list ]]; then # apt has read nothing yet
		apt-get -qq update >&2
		list=$(sources)
	fi
	if [[ -z $list ]]; then
		echo "rootfs: no apt source for Debian $suite (add one below /etc/apt/sources.list.d and run apt-get update)" >&2
		return 1
	fi
	key=$({ cat "${BASH_SOURCE[0]}"; printf '%s' "$list"; } | sha256sum | cut -c1-16)
	mkdir -p "$cache"
	tar=$(cd "$cache" && pwd)/rootfs-$suite-$variant-$key.tar
	exec 9>"$cache/lock"
	flock 9 # another build may be making the same tar
	if [[ -n $refresh || ! -e $tar ]]; then
		local start=$SECONDS
		echo "rootfs: building $(basename "$tar")" >&2
		build "$tar" "$list" "${packages[@]}"
		find "$(dirname "$tar")" -name "rootfs-$suite-$variant-*.tar*" ! -name "$(basename "$tar")" -delete
		echo "rootfs: $(du -h "$tar" | cut -f1), $((SECONDS - start)) s" >&2
	fi
	echo "$tar"
}

main "$@"
