#!/bin/sh
# shellcheck source-path=SCRIPTDIR
# usage: tuning.sh [--whole]
# The node as tuning.hcl describes it, on a machine with four CPUs, two NUMA nodes and a
# NIC of four queues. What is checked is asked of the kernel, systemd, ip, tc and
# ethtool. cloud-init delivers the profile at the first boot, whose apply does all of it,
# changes the kernel's command line and reboots: the test begins in the second boot.
# --whole adds what takes GRUB, and so time: a rollback and another apply; and an argument
# that GRUB does not hand over, for which the third boot reboots by itself, once, and the
# fourth gives up and has all the rest.
cd "$(dirname "$0")" || exit 1
# shellcheck source=look.sh
. ./look.sh
node=/sys/devices/system/node

# device: the PCI device of the NIC, which has its interrupts and its NUMA node; virtio itself is below it.
device() { echo /sys/class/net/eth0/device/..; }

# values FILE...: what the files hold, in one line.
values() { cat "$@" | xargs; }

# affinity NAME: where the interrupts of the NIC's queues, "input" or "output", may go, by queue.
affinity() {
	for affinity_irq in "$(device)"/msi_irqs/*; do
		echo "${affinity_irq##*/}:"
	done | awk -v name="-$1." 'NR == FNR { mine[$1]; next }
		$1 in mine && i = index($NF, name) { printf "%s /proc/irq/%d/smp_affinity_list\n", substr($NF, i), $1 }' - /proc/interrupts |
		sort | cut -d' ' -f2 | xargs cat | xargs
}

# leaves: qdiscs and their places, and how many of them have the options of the profile.
leaves() {
	tc qdisc show dev eth0 | awk '
		{ place = $4; if (place != "root") { place = $5; sub(/.*:/, ":", place) } print $2, place }
		/limit 20000p flow_limit 200p/ { n++ }
		END { print "with options", n + 0 }' | sort | xargs
}

nic_state() {
	echo "mtu: $(mtu eth0)"
	echo "channels, most and now: $(ethtool -l eth0 | awk '/^Combined/ { print $2 }' | xargs)"
	echo "rings rx tx, most and now: $(ethtool -g eth0 | awk '/^[RT]X:/ { print $2 }' | xargs)"
	ethtool -k eth0 | grep -E '^\s*(tx-nocache-copy|tx-tcp-mangleid-segmentation|rx-fcs):' | xargs
	echo "interrupts, input: $(affinity input)"
	echo "interrupts, output: $(affinity output)"
	echo "rps: $(values /sys/class/net/eth0/queues/rx-*/rps_cpus)"
	# Which queue a CPU has is free.
	echo "xps: $(cat /sys/class/net/eth0/queues/tx-*/xps_cpus | sort | xargs)"
	echo "qdiscs: $(leaves)"
}

# free_nic_state: without what irqbalance decides.
free_nic_state() { nic_state | grep -v ^interrupts; }

kernel_state() {
	echo "modules: $(lsmod | awk '$1 ~ /^(nf_conntrack|sch_fq|tcp_bbr)$/ { print $1 }' | sort | xargs)"
	echo "thp: $(values /sys/kernel/mm/transparent_hugepage/enabled)"
	echo "hugepages by node: $(values $node/node[01]/hugepages/hugepages-2048kB/nr_hugepages)"
	echo "command line: $(tr ' ' '\n' </proc/cmdline | grep -E 'skew_tick|nosoftlockup|nodeprov_test' | sort | xargs)"
	echo "ksm: $(values /sys/kernel/mm/ksm/run /sys/kernel/mm/ksm/pages_to_scan)"
	for kernel_key in net.core.default_qdisc net.ipv4.tcp_congestion_control net.core.somaxconn net.netfilter.nf_conntrack_max \
		net.ipv4.conf.eth0.arp_announce net.ipv4.tcp_rmem kernel.numa_balancing vm.swappiness; do
		echo "$kernel_key: $(live $kernel_key)"
	done
	echo "rp_filter, of all interfaces: $(cat /proc/sys/net/ipv4/conf/*/rp_filter | sort -u | xargs)"
}

system_state() {
	echo "latency request in force, us: $(od -An -td4 /dev/cpu_dma_latency | xargs)"
	echo "AllowedCPUs: $(property system.slice AllowedCPUs) $(property user.slice AllowedCPUs)"
	# Without any AllowedCPUs, the slices have no cpuset.
	echo "cpuset of the cgroups: $(cat /sys/fs/cgroup/system.slice/cpuset.cpus.effective /sys/fs/cgroup/user.slice/cpuset.cpus.effective 2>/dev/null | xargs)"
	echo "CPUs of a process in system.slice: $(awk '/^Cpus_allowed_list/ { print $2 }' "/proc/$(property systemd-journald.service MainPID)/status")"
	echo "irqbalance: $(property irqbalance.service LoadState) $(property irqbalance.service ActiveState)"
	echo "unit: $(property nodeprov-example.service ActiveState) $(property nodeprov-example.service UnitFileState)"
	echo "drop-in: $(property systemd-logind.service OOMScoreAdjust)"
	[ ! -e /etc/motd.d/nodeprov ] || echo "file: $(stat -c '%a %U:%G' /etc/motd.d/nodeprov) $(cat /etc/motd.d/nodeprov)"
}

# is NAME TEXT: what NAME_state prints.
is() { "$1_state" >$state/is && echo "$2" | diff -u - $state/is; }

nic_is_wanted() {
	is nic 'mtu: 1400
channels, most and now: 4 4
rings rx tx, most and now: 512 256 256 128
tx-tcp-mangleid-segmentation: on tx-nocache-copy: on rx-fcs: off [fixed]
interrupts, input: 2 3 2 3
interrupts, output: 2 3 2 3
rps: f f f f
xps: 1 2 4 8
qdiscs: fq :1 fq :2 fq :3 fq :4 mq root with options 4'
}

kernel_is_wanted() {
	is kernel "modules: nf_conntrack sch_fq tcp_bbr
thp: always [madvise] never
hugepages by node: 4 6
command line: nosoftlockup skew_tick=1
ksm: 1 200
net.core.default_qdisc: fq
net.ipv4.tcp_congestion_control: bbr
net.core.somaxconn: 8192
net.netfilter.nf_conntrack_max: 200000
net.ipv4.conf.eth0.arp_announce: 2
net.ipv4.tcp_rmem: 4096 131072 16777216
kernel.numa_balancing: 0
vm.swappiness: 10
rp_filter, of all interfaces: 0"
}

system_is_wanted() {
	is system 'latency request in force, us: 20
AllowedCPUs: 0-1 0-1
cpuset of the cgroups: 0-1 0-1
CPUs of a process in system.slice: 0-1
irqbalance: masked inactive
unit: active enabled
drop-in: -500
file: 640 root:root tuned by nodeprov'
}

all_is_wanted() { # all_is_wanted WHEN
	t "$1: kernel" kernel_is_wanted
	t "$1: CPUs, systemd, files" system_is_wanted
	t "$1: NIC" nic_is_wanted
}

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
	echo "# $1: MTU and RPS are healed after $(($(now_ms) - heals_start)) ms"
	t "$1: NIC" until_true 10 nic_is_wanted
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
	t '… and the latency request is still in force' system_is_wanted
	watch_pid=$(property nodeprov-watch.service MainPID)
	kill -9 "$watch_pid"
	t 'kill -9 nodeprov-watch: systemd restarts it' until_true 30 restarted nodeprov-watch.service "$watch_pid"
	t '… and the latency request is still in force' system_is_wanted
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
	all_is_wanted 'after apply'
	t 'sysctl --system succeeds' status 0 sysctl --system --quiet
	t 'after sysctl --system: kernel' kernel_is_wanted
}

test_rollback() {
	t 'rollback' status 0 nodeprov rollback --to 0
	# fq, without our options: nodeprov-early had set default_qdisc before the NIC came up.
	t 'after rollback: NIC' is free_nic 'mtu: 1500
channels, most and now: 4 4
rings rx tx, most and now: 512 256 512 256
tx-tcp-mangleid-segmentation: off tx-nocache-copy: off rx-fcs: off [fixed]
rps: 0 0 0 0
xps: 1 2 4 8
qdiscs: fq :1 fq :2 fq :3 fq :4 mq root with options 0'
	t 'after rollback: THP' prints '[always] madvise never' cat /sys/kernel/mm/transparent_hugepage/enabled
	t 'after rollback: CPUs, systemd, files' is system 'latency request in force, us: 2000000000
AllowedCPUs:  
cpuset of the cgroups: 
CPUs of a process in system.slice: 0-3
irqbalance: loaded active
unit: inactive 
drop-in: 0'
	t 'after rollback: GRUB has its own command line' status 1 grep -q skew_tick /boot/grub/grub.cfg
	t 'apply after rollback' status 0 nodeprov apply
	all_is_wanted 'applied again'
	t 'applied again: GRUB has the arguments' grep -q 'linux.*skew_tick=1' /boot/grub/grub.cfg
}

# own_entry: the administrator boots an entry of his own, whose command line stays as it is.
own_entry() {
	echo 'GRUB_DEFAULT=own' >/etc/default/grub.d/99-own.cfg
	cat >/etc/grub.d/42_own <<-G
		#!/bin/sh
		exec tail -n +3 \$0
		menuentry 'own' --id own {
			search --no-floppy --label nodeprov --set=root
			linux /boot/vmlinuz-$(uname -r) $(cut -d' ' -f2- /proc/cmdline)
			initrd /boot/initrd.img-$(uname -r)
		}
	G
	chmod +x /etc/grub.d/42_own
}

test_live() {
	agrees 'after boot'
	all_is_wanted 'after boot'
}

begin
case $(boots) in
2)
	t 'the first boot rebooted for its command line' prints 2 boots
	t 'GRUB was asked by update-grub' grep -q 'BEGIN /etc/grub.d/10_linux' /boot/grub/grub.cfg
	test_hardware
	test_units
	test_live
	# Before the others, for it leads to the values before nodeprov's first change: a value changed by hand is one, too.
	if [ "$1" = --whole ]; then
		test_rollback
	fi
	test_drift
	test_watch
	if [ "$1" = --whole ]; then
		own_entry
		sed -i 's/set *= { skew_tick/set = { nodeprov_test = "lost", skew_tick/' /etc/nodeprov/profile.hcl
		finish 3
	else
		finish 2
	fi
	;;
3)
	t 'guard: the machine rebooted once more' false
	finish 3
	;;
4)
	t 'guard: one reboot, and no more' prints 4 boots
	t 'guard: status tells that it was given up' shows 'nodeprov_test=lost' nodeprov status
	t 'guard: the boot came to an end' prints running systemctl is-system-running --wait
	all_is_wanted 'guard'
	note nodeprov status
	finish 4
	;;
esac
