#!/bin/sh
# shellcheck source-path=SCRIPTDIR
# usage: tuning.sh [--guard]
# The node as tuning.hcl describes it, on a machine with four CPUs, two NUMA nodes and a
# NIC of four queues. What is checked is asked of the kernel, systemd, ip, tc and
# ethtool. cloud-init delivers the profile at the first boot, whose apply changes the
# kernel's command line and reboots: the test begins in the second boot, and does all of it
# again in the third. With --guard the third gets a command line that never arrives,
# so that it reboots by itself, once; and the fourth gives up.
cd "$(dirname "$0")" || exit 1
# shellcheck source=look.sh
. ./look.sh
node=/sys/devices/system/node

# device: the PCI device of the NIC, which has its interrupts and its NUMA node; virtio itself is below it.
device() { echo /sys/class/net/eth0/device/..; }

# irqs NAME: the interrupts of the NIC's queues, "input" or "output", by queue.
irqs() {
	for irqs_n in "$(device)"/msi_irqs/*; do
		awk -v irq="${irqs_n##*/}:" -v name="-$1." '$1 == irq && (i = index($NF, name)) { print substr($NF, i), $1 + 0 }' /proc/interrupts
	done | sort | cut -d' ' -f2
}

# affinity NAME: where they may go, by queue.
affinity() { for affinity_n in $(irqs "$1"); do cat "/proc/irq/$affinity_n/smp_affinity_list"; done | xargs; }

# queues FILE: of each queue.
# shellcheck disable=SC2086 # a pattern
queues() { cat /sys/class/net/eth0/queues/$1 | xargs; }

channels() { ethtool -l eth0 | awk '/^Combined/ { print $2 }' | xargs; }
rings() { ethtool -g eth0 | awk '/^[RT]X:/ { print $2 }' | xargs; }
feature() { ethtool -k eth0 | awk -v f="$1:" '$1 == f { print $2 }'; }
qdiscs() { tc qdisc show dev eth0 | awk '{ print $2, ($4 == "root" ? $4 : $5) }' | sort | xargs; }
selected() { sed 's/.*\[\(.*\)\].*/\1/' "$1"; }
hugepages() { cat $node/node[01]/hugepages/hugepages-2048kB/nr_hugepages | xargs; }
cpuset() { cat "/sys/fs/cgroup/$1/cpuset.cpus.effective"; }
# latency: the limit that is in force, in microseconds.
latency() { od -An -td4 /dev/cpu_dma_latency | tr -d ' '; }
argument() { tr ' ' '\n' </proc/cmdline | grep -xc -- "$1"; }

# nic_is WHEN: the whole of what the profile asks of the NIC.
nic_is() {
	t "$1: 4 channels (of 4)" prints '4 4' channels
	t "$1: rings" prints '512 256 256 128' rings
	t "$1: MTU" prints 1400 mtu eth0
	t "$1: feature tx-nocache-copy" prints on feature tx-nocache-copy
	t "$1: feature tx-tcp-mangleid-segmentation" prints on feature tx-tcp-mangleid-segmentation
	t "$1: a feature that this NIC cannot have is as it was" prints off feature rx-fcs
	t "$1: interrupts are spread over the CPUs of the NIC's node" prints '2 3 2 3' affinity input
	t "$1: … and a queue's both interrupts go together" prints '2 3 2 3' affinity output
	t "$1: RPS" prints 'f f f f' queues 'rx-*/rps_cpus'
	t "$1: XPS, a CPU for each queue" prints '1 2 4 8' xps
	t "$1: fq on each leaf of the root" prints 'fq :1 fq :2 fq :3 fq :4 mq root' qdiscs
	t "$1: fq's options" prints 4 leaves_with 'limit 20000p flow_limit 200p'
}
xps() { queues 'tx-*/xps_cpus' | tr ' ' '\n' | sort | xargs; }
leaves_with() { tc qdisc show dev eth0 | grep -c "fq .*$1"; }

kernel_is() { # kernel_is WHEN
	t "$1: modules are loaded" prints '1 1 1' modules
	t "$1: THP" prints madvise selected /sys/kernel/mm/transparent_hugepage/enabled
	t "$1: hugepages, by node" prints '4 6' hugepages
	t "$1: command line: skew_tick=1, once" prints 1 argument skew_tick=1
	t "$1: command line: nosoftlockup, once" prints 1 argument nosoftlockup
	for kernel_pair in net.core.default_qdisc=fq net.ipv4.tcp_congestion_control=bbr net.core.somaxconn=8192 \
		net.netfilter.nf_conntrack_max=200000 net.ipv4.conf.eth0.arp_announce=2 kernel.numa_balancing=0 vm.swappiness=10; do
		t "$1: ${kernel_pair%=*} is ${kernel_pair#*=}" prints "${kernel_pair#*=}" live "${kernel_pair%=*}"
	done
	t "$1: net.ipv4.tcp_rmem" prints '4096 131072 16777216' live net.ipv4.tcp_rmem
	t "$1: rp_filter of every interface" prints 0 sh -c 'cat /proc/sys/net/ipv4/conf/*/rp_filter | sort -u'
	t "$1: KSM" prints '1 200' sh -c 'cat /sys/kernel/mm/ksm/run /sys/kernel/mm/ksm/pages_to_scan | xargs'
}
modules() { for modules_m in nf_conntrack sch_fq tcp_bbr; do lsmod | awk '{ print $1 }' | grep -xc $modules_m; done | xargs; }

system_is() { # system_is WHEN
	t "$1: latency request in force" prints 20 latency
	t "$1: system.slice: systemd's property" prints 0-1 property system.slice AllowedCPUs
	t "$1: system.slice: the cgroup" prints 0-1 cpuset system.slice
	t "$1: user.slice: the cgroup" prints 0-1 sh -c 'cat /sys/fs/cgroup/user.slice/cpuset.cpus'
	t "$1: a process of system.slice runs there only" prints 0-1 allowed systemd-journald.service
	t "$1: irqbalance is masked" prints masked property irqbalance.service LoadState
	t "$1: irqbalance does not run" prints inactive property irqbalance.service ActiveState
	t "$1: the file" prints '640 root tuned by nodeprov' sh -c 'stat -c "%a %U" /etc/motd.d/nodeprov && cat /etc/motd.d/nodeprov' 
	t "$1: the unit runs" prints active property nodeprov-example.service ActiveState
	t "$1: the unit is enabled" prints enabled property nodeprov-example.service UnitFileState
	t "$1: the drop-in is loaded" prints -500 property systemd-logind.service OOMScoreAdjust
}
allowed() { awk '/^Cpus_allowed_list/ { print $2 }' "/proc/$(property "$1" MainPID)/status"; }

agrees() { # agrees WHEN
	t "$1: verify" status 0 nodeprov verify
	t "$1: plan is empty" status 0 nodeprov plan --detailed-exitcode
}

queue_count() { for queue_count_k in rx tx; do find /sys/class/net/eth0/queues/ -name "$queue_count_k-*" | wc -l; done | xargs; }

test_hardware() {
	t 'machine: two nodes of two CPUs' prints '0-1 2-3' sh -c "cat $node/node[01]/cpulist | xargs"
	t 'machine: threads of a core' prints '0-1 0-1 2-3 2-3' sh -c 'cat /sys/devices/system/cpu/cpu[0-3]/topology/thread_siblings_list | xargs'
	t 'machine: the NIC is on node 1' prints 1 cat "$(device)/numa_node"
	t 'machine: the NIC has four queues' prints '4 4' queue_count
}

test_units() {
	sound_boot
	t 'nodeprov-apply: succeeded' prints success property nodeprov-apply.service Result
	t 'nodeprov-early: succeeded' prints success property nodeprov-early.service Result
	t 'nodeprov-early: done before network-pre.target' in_order nodeprov-early.service ExecMainExit network-pre.target ActiveEnter
	t 'nodeprov-watch: active' prints active property nodeprov-watch.service ActiveState
	note nodeprov status
	note nodeprov plan
	note systemd-analyze --no-pager critical-chain nodeprov-apply.service
	for test_unit in nodeprov-early.service nodeprov-apply.service; do
		echo "# $test_unit took $((($(stamp $test_unit ExecMainExit) - $(stamp $test_unit ExecMainStart)) / 1000)) ms"
	done
}

# healed: the first and the last of the NIC's settings are as wanted. Asked without starting a
# process: those take longer here than healing does.
healed() {
	healed_mtu='' healed_rps=''
	read -r healed_mtu </sys/class/net/eth0/mtu || return 1
	read -r healed_rps </sys/class/net/eth0/queues/rx-3/rps_cpus || return 1
	[ "$healed_mtu $healed_rps" = '1400 f' ]
} 2>/dev/null

heals() { # heals WHAT: tells how long it took; at most 10 s in an emulated machine
	heals_start=$(now_ms)
	t "$1: healed" until_true 10 healed
	echo "# $1: healed after $(($(now_ms) - heals_start)) ms"
	# The queues' part comes later than the link's.
	until_true 10 sh -c 'tc qdisc show dev eth0 | grep -c "fq .*limit 20000p" | grep -qx 4'
	nic_is "$1"
}

test_watch() {
	virtio=$(basename "$(readlink -f /sys/class/net/eth0/device)")
	t 'unbind' until_true 10 sh -c "echo $virtio >/sys/bus/virtio/drivers/virtio_net/unbind; [ ! -e /sys/class/net/eth0 ]"
	echo "$virtio" >/sys/bus/virtio/drivers/virtio_net/bind
	heals 'driver bound again'
	ip link set eth0 down
	ip link set eth0 mtu 1500
	ethtool -L eth0 combined 2
	ip link set eth0 up
	heals 'NIC reset'
	agrees 'after both'

	t 'nodeprov-watch restarts' status 0 systemctl restart nodeprov-watch.service
	t 'the latency request outlives it' prints 20 latency
	watch_pid=$(property nodeprov-watch.service MainPID)
	kill -9 "$watch_pid"
	t 'kill -9 nodeprov-watch: systemd restarts it' until_true 30 restarted nodeprov-watch.service "$watch_pid"
	t 'the latency request outlives that too' prints 20 latency
}
restarted() { [ "$(property "$1" MainPID)" != "$2" ] && [ "$(property "$1" ActiveState)" = active ]; }

test_drift() {
	echo 60 >/proc/sys/vm/swappiness
	echo always >/sys/kernel/mm/transparent_hugepage/enabled
	tc qdisc replace dev eth0 parent "$(tc qdisc show dev eth0 | awk '/mq/ { print $3 }')1" pfifo
	echo 0 >/sys/class/net/eth0/queues/tx-1/xps_cpus
	systemctl set-property --runtime system.slice AllowedCPUs=0-3
	t 'changes by hand are drift' status 2 nodeprov verify
	t '… and apply puts them right' status 0 nodeprov apply
	kernel_is 'after apply'
	system_is 'after apply'
	nic_is 'after apply'
	agrees 'after apply'
}

test_sysctl_system() {
	t 'sysctl --system succeeds' status 0 sysctl --system --quiet
	kernel_is 'after sysctl --system'
}

test_rollback() {
	t 'rollback' status 0 nodeprov rollback --to 0
	t 'after rollback: MTU' prints 1500 mtu eth0
	t 'after rollback: rings' prints '512 256 512 256' rings
	t 'after rollback: qdiscs' prints 'fq_codel :1 fq_codel :2 fq_codel :3 fq_codel :4 mq root' qdiscs
	t 'after rollback: RPS' prints '0 0 0 0' queues 'rx-*/rps_cpus'
	t 'after rollback: THP' prints always selected /sys/kernel/mm/transparent_hugepage/enabled
	t 'after rollback: KSM' prints '0 100' sh -c 'cat /sys/kernel/mm/ksm/run /sys/kernel/mm/ksm/pages_to_scan | xargs'
	t 'after rollback: irqbalance runs' prints active property irqbalance.service ActiveState
	t 'after rollback: system.slice' prints 0-3 cpuset system.slice
	t 'after rollback: the file is gone' status 1 test -e /etc/motd.d/nodeprov
	t 'after rollback: the unit is gone' prints not-found property nodeprov-example.service LoadState
	t 'after rollback: GRUB has its own command line' status 1 grep -q skew_tick /boot/grub/grub.cfg
	t 'apply after rollback' status 0 nodeprov apply
	kernel_is 'applied again'
	system_is 'applied again'
	nic_is 'applied again'
	t 'applied again: GRUB has the arguments' grep -q 'linux.*skew_tick=1' /boot/grub/grub.cfg
}

test_live() {
	agrees 'after boot'
	kernel_is 'after boot'
	system_is 'after boot'
	nic_is 'after boot'
}

begin
case $(boots) in
2)
	t 'the first boot rebooted for its command line' prints 2 boots
	t 'GRUB was asked by update-grub' grep -q 'BEGIN /etc/grub.d/10_linux' /boot/grub/grub.cfg
	test_hardware
	test_units
	test_live
	test_watch
	test_drift
	test_sysctl_system
	test_rollback
	if [ "$1" = --guard ]; then
		# Another one's file takes our argument away again.
		echo 'GRUB_CMDLINE_LINUX="skew_tick=1 nosoftlockup"' >/etc/default/grub.d/99-other.cfg
		sed -i 's/set *= { skew_tick/set = { nodeprov_test = "lost", skew_tick/' /etc/nodeprov/profile.hcl
	fi
	finish 3
	;;
3)
	t 'no other boot was needed' test "$1" != --guard
	test_units
	test_live
	finish 3
	;;
4)
	t 'guard: one reboot, and no more' prints 4 boots
	t 'guard: the argument is not there' prints 0 argument nodeprov_test=lost
	t 'guard: status tells that it was given up' shows 'nodeprov_test=lost' nodeprov status
	t 'guard: the boot came to an end' prints running systemctl is-system-running --wait
	kernel_is 'guard'
	system_is 'guard'
	nic_is 'guard'
	note nodeprov status
	finish 4
	;;
esac
