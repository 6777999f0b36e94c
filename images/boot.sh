#!/bin/bash
# Boots an image of build.sh --test in QEMU, hands it a test, shows the test's
# output as it comes, and tells whether it passed. A reboot of the guest boots the
# same disk again; so does a power cut, which the guest can ask for.
set -euo pipefail

usage() {
	cat <<'U'
usage: boot.sh --test DIR --seed FILE [--image DIR] [--kernel VERSION] [--grub | --append ARGUMENT]
               [--machine NAME] [--durable] [--run DIR] [--timeout SECONDS]
  --test DIR         what is run in the guest: DIR/run.sh, started after each boot
  --seed FILE        cloud-init's seed disk (images/seed.sh)
  --image DIR        what build.sh --test made (default: images/out/test)
  --kernel VERSION   which of the image's kernels (default: 6.1)
  --grub             boot as a machine does, through firmware, GRUB and its configuration;
                     else the kernel is booted directly
  --append ARGUMENT  added to the kernel's command line
  --machine NAME     small: 2 CPUs, 1 GiB, a NIC (default)
                     numa: 4 CPUs, as 2 sockets with 2 threads, on 2 NUMA nodes with
                     768 MiB each; a NIC of 4 queues on node 1. Needs root and /dev/net/tun
  --durable          what the guest flushes reaches its disk, which costs seconds; only a
                     test that loses power can tell
  --run DIR          result.log, console.log, qemu.log and the guest's disk go here
                     (default: .cache/images/run); replaced
  --timeout SECONDS  of the whole, over all boots (default: 600)

Exit status: 0 if the test says "END ok", 1 if not, 2 if the guest did not get
that far (stopped by the time-out or by a kernel panic).

A test that writes the line "CUT" loses power at once: what it had not flushed to its
disk is lost. The machine is then switched on again.

The NIC is eth0 and leads nowhere. The processor is emulated (tcg): that runs
everywhere, also where hardware virtualisation is absent or does not nest.
U
}

here=$(cd "$(dirname "$0")" && pwd)

# hardware NAME: prints the options of QEMU that are the machine's own, one a line.
# virtio enables as many queue pairs as there are CPUs at most. A NIC knows its NUMA
# node by the PCI bus that it is on, so it has a host bridge there.
hardware() {
	case $1 in
	small)
		printf '%s\n' -smp 2 -m 1024 \
			-netdev hubport,id=net,hubid=0 \
			-device virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,romfile=
		;;
	numa)
		printf '%s\n' -smp 4,sockets=2,cores=1,threads=2 -m 1536 \
			-object memory-backend-ram,id=mem0,size=768M -object memory-backend-ram,id=mem1,size=768M \
			-numa node,nodeid=0,cpus=0-1,memdev=mem0 -numa node,nodeid=1,cpus=2-3,memdev=mem1 \
			-device pxb-pcie,id=bridge1,bus_nr=64,bus=pcie.0,numa_node=1 \
			-device pcie-root-port,id=port1,bus=bridge1,chassis=1 \
			-netdev tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off,queues=4 \
			-device virtio-net-pci,bus=port1,netdev=net,mq=on,vectors=10,rx_queue_size=512,mac=52:54:00:00:00:01,romfile=
		;;
	*) return 1 ;;
	esac
}

main() {
	local test='' seed='' image=$here/out/test kernel=6.1 grub='' append='' machine=small cache=unsafe
	local run=$here/../.cache/images/run limit=600
	while (($#)); do
		case $1 in
		--test) test=$2 && shift ;;
		--seed) seed=$2 && shift ;;
		--image) image=$2 && shift ;;
		--kernel) kernel=$2 && shift ;;
		--grub) grub=1 ;;
		--durable) cache=writeback ;;
		--append) append=$2 && shift ;;
		--machine) machine=$2 && shift ;;
		--run) run=$2 && shift ;;
		--timeout) limit=$2 && shift ;;
		--help | -h) usage && return ;;
		*) usage >&2 && return 64 ;;
		esac
		shift
	done
	local hardware=()
	mapfile -t hardware < <(hardware "$machine")
	if [[ -z $test || -z $seed || ${#hardware[@]} -eq 0 ]]; then
		usage >&2
		return 64
	fi
	local disk=$image/disk.img boot=() bootindex='' f
	if [[ $grub ]]; then
		disk=$image/grub-$kernel.img
		bootindex=,bootindex=0
	else
		boot=(-kernel "$image/vmlinuz-$kernel" -initrd "$image/initrd-$kernel.img"
			-append "root=LABEL=nodeprov rw $(<"$here/test/cmdline") $append")
	fi
	for f in "$test/run.sh" "$seed" "$disk" "${boot[@]:1:1}" "${boot[@]:3:1}"; do
		if [[ ! -e $f ]]; then
			echo "boot: no $f (images/build.sh --test and images/seed.sh make them)" >&2
			return 64
		fi
	done
	rm -rf "$run"
	mkdir -p "$run"
	run=$(cd "$run" && pwd)
	# An overlay, so that the image stays as it was built.
	qemu-img create -q -f qcow2 -F raw -b "$(realpath "$disk")" "$run/disk.qcow2"
	# The test travels as a plain tar on a disk of its own: a new test needs no new image.
	tar --owner=0 --group=0 -C "$test" -cf "$run/test.img" .
	truncate -s %512 "$run/test.img"
	: >"$run/console.log"
	: >"$run/result.log"

	local rc=0 until=$((SECONDS + limit))
	# q35: microvm has no MSI-X. Nehalem: newer models draw AVX code into the guest, which tcg emulates slowly.
	# shellcheck disable=SC2054 # the commas are QEMU's
	local command=(qemu-system-x86_64 -nodefaults -no-user-config -display none
		-M q35 -accel tcg,thread=multi,tb-size=512 -cpu Nehalem "${boot[@]}"
		-chardev "file,id=console,path=$run/console.log,append=on" -serial chardev:console -device virtio-rng-pci
		-drive "file=$run/disk.qcow2,format=qcow2,if=none,id=root,cache=$cache" -device "virtio-blk-pci,drive=root$bootindex"
		-drive "file=$seed,format=raw,if=none,id=seed,readonly=on" -device virtio-blk-pci,drive=seed
		-drive "file=$run/test.img,format=raw,if=none,id=test,readonly=on" -device virtio-blk-pci,drive=test,serial=nodeprov-test
		-device virtio-serial-pci -chardev "file,id=result,path=$run/result.log,append=on"
		-device virtserialport,chardev=result,name=nodeprov.test
		"${hardware[@]}") # last, or the devices above would look for their place on its bridge
	# A tap device is made by QEMU, in a network namespace that ends with it.
	if [[ $machine == numa ]]; then
		command=(unshare --net -- "${command[@]}")
	fi
	while :; do
		rc=0
		power_on "$run" $((until - SECONDS)) "${command[@]}" || rc=$?
		((rc == 75)) || break
	done

	rm -f "$run/disk.qcow2" "$run/test.img"
	if grep -qx 'END ok' "$run/result.log"; then
		return 0
	fi
	echo "boot: end of $run/console.log:" >&2
	tail -n 40 "$run/console.log" | tr -d '\r' | sed 's/^/  | /' >&2
	if [[ -s $run/qemu.log ]]; then
		sed 's/^/  qemu: /' "$run/qemu.log" >&2
	fi
	if grep -qx 'END failed' "$run/result.log"; then
		echo "boot: the test failed" >&2
		return 1
	fi
	if ((rc == 124)); then
		echo "boot: not done after $limit s (--timeout)" >&2
	else
		echo "boot: the guest ended before its test (status $rc)" >&2
	fi
	return 2
}

# power_on RUN SECONDS QEMU...: the machine runs until it switches itself off. Returns
# QEMU's status, 124 for the time-out, 75 for a power cut.
power_on() {
	local run=$1 limit=$2 rc=0
	shift 2
	local said shown
	said=$(stat -c %s "$run/result.log")
	shown=$(stat -c %s "$run/console.log")
	timeout --kill-after=5 "$limit" "$@" >>"$run/qemu.log" 2>&1 &
	local qemu=$!
	# shellcheck disable=SC2064 # the process of now
	trap "kill $qemu 2>/dev/null || true" EXIT
	tail --pid=$qemu -s 0.2 -c +$((said + 1)) -f "$run/result.log" &
	local follow=$!
	# A guest that cannot go on would else be waited for until the time-out.
	{
		if grep -q -m1 -e 'Kernel panic' -e '^(initramfs)' -e 'in emergency mode' \
			< <(tail --pid=$qemu -c +$((shown + 1)) -f "$run/console.log"); then
			kill $qemu 2>/dev/null
		fi
	} &
	# SIGKILL, so that QEMU writes nothing more; to its children first, for timeout cannot pass it on.
	{
		if grep -q -m1 -x CUT < <(tail --pid=$qemu -s 0.05 -c +$((said + 1)) -f "$run/result.log"); then
			pkill -KILL -P $qemu
		fi
	} &
	wait $qemu 2>/dev/null || rc=$? # 2>: the shell's own "Killed" on a power cut
	wait $follow || true
	trap - EXIT
	if tail -c +$((said + 1)) "$run/result.log" | grep -qx CUT; then
		return 75
	fi
	return $rc
}

main "$@"
