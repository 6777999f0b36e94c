#!/bin/bash
# Boots an image of build.sh --test in QEMU, hands it a test, shows the test's
# output as it comes, and tells whether it passed. The kernel is booted
# directly; a reboot of the guest boots the same disk again.
set -euo pipefail

usage() {
	cat <<'U'
usage: boot.sh --test DIR --seed FILE [--image DIR] [--run DIR] [--timeout SECONDS] [--smp N] [--memory MIB]
  --test DIR         what is run in the guest: DIR/run.sh, started after each boot
  --seed FILE        cloud-init's seed disk (images/seed.sh)
  --image DIR        disk.img, vmlinuz, initrd.img (default: images/out/test)
  --run DIR          result.log, console.log, qemu.log and the guest's disk go here
                     (default: .cache/images/run); replaced
  --timeout SECONDS  of the whole, over all boots (default: 600)

Exit status: 0 if the test says "END ok", 1 if not, 2 if the guest did not get
that far (stopped by the time-out or by a kernel panic).

The NIC is eth0 and leads nowhere. The processor is emulated (tcg): that runs
everywhere, also where hardware virtualisation is absent or does not nest.
U
}

here=$(cd "$(dirname "$0")" && pwd)

main() {
	local test='' seed='' image=$here/out/test run=$here/../.cache/images/run limit=600 smp=2 memory=1024
	while (($#)); do
		case $1 in
		--test) test=$2 && shift ;;
		--seed) seed=$2 && shift ;;
		--image) image=$2 && shift ;;
		--run) run=$2 && shift ;;
		--timeout) limit=$2 && shift ;;
		--smp) smp=$2 && shift ;;
		--memory) memory=$2 && shift ;;
		--help | -h) usage && return ;;
		*) usage >&2 && return 64 ;;
		esac
		shift
	done
	if [[ -z $test || -z $seed ]]; then
		usage >&2
		return 64
	fi
	local f
	for f in "$test/run.sh" "$seed" "$image/disk.img" "$image/vmlinuz" "$image/initrd.img"; do
		if [[ ! -e $f ]]; then
			echo "boot: no $f (images/build.sh --test and images/seed.sh make them)" >&2
			return 64
		fi
	done
	rm -rf "$run"
	mkdir -p "$run"
	run=$(cd "$run" && pwd)
	image=$(cd "$image" && pwd)
	# An overlay, so that the image stays as it was built.
	qemu-img create -q -f qcow2 -F raw -b "$image/disk.img" "$run/disk.qcow2"
	# The test travels as a plain tar on a disk of its own: a new test needs no new image.
	tar --owner=0 --group=0 -C "$test" -cf "$run/test.img" .
	truncate -s %512 "$run/test.img"
	: >"$run/console.log"
	: >"$run/result.log"

	# q35: microvm has no MSI-X. Nehalem: newer models draw AVX code into the guest, which tcg emulates slowly.
	# cache=unsafe: the guest's flushes cost seconds, and this disk is thrown away.
	timeout --kill-after=5 "$limit" qemu-system-x86_64 -nodefaults -no-user-config -display none \
		-M q35 -accel tcg,thread=multi,tb-size=512 -cpu Nehalem -smp "$smp" -m "$memory" \
		-kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
		-append "root=/dev/vda rw console=ttyS0 quiet loglevel=4 mitigations=off net.ifnames=0 systemd.show_status=auto" \
		-serial "file:$run/console.log" -device virtio-rng-pci \
		-drive "file=$run/disk.qcow2,format=qcow2,if=none,id=root,cache=unsafe" -device virtio-blk-pci,drive=root \
		-drive "file=$seed,format=raw,if=none,id=seed,readonly=on" -device virtio-blk-pci,drive=seed \
		-drive "file=$run/test.img,format=raw,if=none,id=test,readonly=on" -device virtio-blk-pci,drive=test,serial=nodeprov-test \
		-device virtio-serial-pci -chardev "file,id=result,path=$run/result.log" \
		-device virtserialport,chardev=result,name=nodeprov.test \
		-netdev hubport,id=net,hubid=0 -device virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,romfile= \
		>"$run/qemu.log" 2>&1 &
	local qemu=$!
	# shellcheck disable=SC2064 # the process of now
	trap "kill $qemu 2>/dev/null || true" EXIT
	tail --pid=$qemu -s 0.2 -n +1 -f "$run/result.log" &
	local follow=$!
	# A guest that cannot go on would else be waited for until the time-out.
	{
		if grep -q -m1 -e 'Kernel panic' -e '^(initramfs)' -e 'in emergency mode' \
			< <(tail --pid=$qemu -n +1 -f "$run/console.log"); then
			kill $qemu 2>/dev/null
		fi
	} &
	local rc=0
	wait $qemu || rc=$?
	wait $follow || true
	trap - EXIT

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

main "$@"
