#!/bin/bash
# Installs what the image's build and its boot test need on this machine, if it
# is missing. Needs root and a Debian or Ubuntu of 2023 or later.
set -euo pipefail

usage() {
	cat <<'U'
usage: packages.sh [--help]
Installs mmdebstrap, QEMU and the file system tools with apt-get, if any is missing.
U
}

# A command of the package : the package.
needs=(
	mmdebstrap:mmdebstrap
	qemu-system-x86_64:qemu-system-x86
	qemu-img:qemu-utils
	mke2fs:e2fsprogs
	mkfs.vfat:dosfstools
	mcopy:mtools
	flock:util-linux
	sfdisk:fdisk
	pkill:procps
	tar:tar
)

main() {
	case ${1:-} in
	"") ;;
	--help | -h) usage && return ;;
	*) usage >&2 && return 64 ;;
	esac
	local need missing=()
	PATH=$PATH:/usr/sbin:/sbin
	[[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || missing+=(debian-archive-keyring)
	for need in "${needs[@]}"; do
		command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
	done
	((${#missing[@]})) || return 0
	if ((EUID != 0)); then
		echo "packages: ${missing[*]} missing (run as root, or apt-get install them)" >&2
		return 1
	fi
	echo "packages: installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update
	apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
}

main "$@"
