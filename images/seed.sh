#!/bin/bash
# Makes a seed disk for cloud-init's NoCloud data source: vfat, labelled CIDATA.
set -euo pipefail

usage() {
	cat <<'U'
usage: seed.sh --user-data FILE [--meta-data FILE] [--network-config FILE] IMAGE
  --user-data FILE       for example images/user-data.example
  --meta-data FILE       default: instance-id made of the user-data's hash, so that
                         changed user-data is a new instance to cloud-init
  --network-config FILE  default: none, cloud-init asks DHCP on the first NIC
U
}

main() {
	local user='' meta='' network='' image=''
	while (($#)); do
		case $1 in
		--user-data) user=$2 && shift ;;
		--meta-data) meta=$2 && shift ;;
		--network-config) network=$2 && shift ;;
		--help | -h) usage && return ;;
		-*) usage >&2 && return 64 ;;
		*) image=$1 ;;
		esac
		shift
	done
	if [[ -z $user || -z $image ]]; then
		usage >&2
		return 64
	fi
	if [[ $(head -n1 "$user") != '#cloud-config' ]]; then
		echo "seed: $user:1: first line is not #cloud-config (cloud-init would ignore the file)" >&2
		return 1
	fi
	PATH=$PATH:/usr/sbin:/sbin
	local work
	work=$(mktemp -d)
	# shellcheck disable=SC2064 # the directory of now
	trap "rm -rf '$work'" EXIT
	local files=(user-data meta-data)
	cp "$user" "$work/user-data"
	if [[ -n $meta ]]; then
		cp "$meta" "$work/meta-data"
	else
		printf 'instance-id: node-%s\nlocal-hostname: node\n' "$(sha256sum "$user" | cut -c1-12)" >"$work/meta-data"
	fi
	if [[ -n $network ]]; then
		cp "$network" "$work/network-config"
		files+=(network-config)
	fi
	truncate -s 1M "$work/seed"
	mkfs.vfat -n CIDATA "$work/seed" >/dev/null
	(cd "$work" && mcopy -i seed "${files[@]}" ::)
	mv "$work/seed" "$image"
}

main "$@"
