#!/bin/sh
# shellcheck source-path=SCRIPTDIR
# usage: services.sh BOOTS
# The node as images/user-data.example sets it up, with lbd and its services. Runs in
# the guest after each of its boots. The second must show what the first showed,
# with cloud-init having nothing left to do and the kernel knowing nothing.
cd "$(dirname "$0")" || exit 1
# shellcheck source=look.sh
. ./look.sh
# shellcheck source=cluster.sh
. ./cluster.sh

values_are() { # values_are WHEN FORWARD FORWARD6 SOMAXCONN MAP_COUNT MTU
	t "$1: net.ipv4.ip_forward is $2" prints "$2" live net.ipv4.ip_forward
	t "$1: net.ipv6.conf.all.forwarding is $3" prints "$3" live net.ipv6.conf.all.forwarding
	t "$1: net.core.somaxconn is $4" prints "$4" live net.core.somaxconn
	t "$1: vm.max_map_count is $5" prints "$5" live vm.max_map_count
	t "$1: MTU of eth0 is $6" prints "$6" mtu eth0
	t "$1: ip link tells the same MTU" shows "mtu $6 " ip link show dev eth0
}

from_client() { pod client "$@"; }
from_node() { "$@"; }

services_answer() { # services_answer WHEN
	for answer_from in client node; do
		t "$1: ClusterIP, TCP, IPv4, from the $answer_from" shows '^(first|second)$' "from_$answer_from" ./probe tcp 10.43.0.10:80
		t "$1: ClusterIP, UDP, IPv4, from the $answer_from" shows '^(first|second)$' "from_$answer_from" ./probe udp 10.43.0.10:53
		t "$1: ClusterIP, TCP, IPv6, from the $answer_from" prints six "from_$answer_from" ./probe tcp '[fd43::10]:80'
		t "$1: ClusterIP, UDP, IPv6, from the $answer_from" prints six "from_$answer_from" ./probe udp '[fd43::10]:53'
	done
}

# refused PROTOCOL ADDRESS: the pod's connection is refused, and not by running into the time-out.
refused() {
	refused_start=$(date +%s%N)
	refused_got=$(pod client ./probe "$1" "$2" --timeout 20s 2>&1) && {
		echo "answers: $refused_got"
		return 1
	}
	refused_ms=$((($(date +%s%N) - refused_start) / 1000000))
	echo "$refused_got, after $refused_ms ms"
	case $refused_got in
	*ECONNREFUSED*) [ $refused_ms -lt 5000 ] ;;
	*) return 1 ;;
	esac
}

# both_backends: one of two answers 24 times in a row once in eight million runs.
both_backends() {
	# shellcheck disable=SC2016 # for the inner shell
	pod client sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do ./probe tcp 10.43.0.10:80 || echo failed; done' |
		sort -u | tr '\n' ' '
}

states() { echo "$(property lbd.service SubState) $(property lbd.service NRestarts)"; }
no_complaint() { ! grep -e WARNING -e ERROR -A5 /var/log/cloud-init.log; }

test_boot() {
	sound_boot
	t 'cloud-init has nothing to complain about' no_complaint
	t 'cloud-init delivered the profile' test -s /etc/nodeprov/profile.hcl
	t 'cloud-init delivered the variables' test -s /etc/nodeprov/node.auto.hclvars
	t 'cloud-init delivered the manifests' test -s /etc/lbd/manifests/echo.yaml

	t 'nodeprov-early: after systemd-sysctl' in_order systemd-sysctl.service ActiveEnter nodeprov-early.service Condition
	if [ "$boot" = 1 ]; then
		t 'nodeprov-early: no profile yet, no failure' prints success property nodeprov-early.service Result
	else
		t 'nodeprov-early: done before network-pre.target' in_order nodeprov-early.service ExecMainExit network-pre.target ActiveEnter
		t 'nodeprov-early: done before sysinit.target' in_order nodeprov-early.service ExecMainExit sysinit.target ActiveEnter
	fi
	t "nodeprov-apply: after cloud-init's network stage" in_order cloud-init.service ExecMainExit nodeprov-apply.service ExecMainStart
	t 'nodeprov-apply: after network.target' in_order network.target ActiveEnter nodeprov-apply.service ExecMainStart
	t 'nodeprov-apply: succeeded' prints success property nodeprov-apply.service Result
	t 'nodeprov-apply: stays active' prints active property nodeprov-apply.service ActiveState
	t 'lbd: started after nodeprov-apply' in_order nodeprov-apply.service ExecMainExit lbd.service ExecMainStart
	t 'lbd: ready' in_order lbd.service ExecMainStart lbd.service ActiveEnter
	t 'lbd: running, never restarted' prints 'running 0' states
	t 'lbd: enabled' prints enabled systemctl is-enabled lbd.service
}

test_profile() {
	values_are 'after boot' 1 1 8192 262144 1400
	t 'verify: no drift' status 0 nodeprov verify
	t 'plan: nothing to change' status 0 nodeprov plan --detailed-exitcode
	t 'status' status 0 nodeprov status
	note nodeprov status
	note nodeprov plan

	echo 70000 >/proc/sys/vm/max_map_count
	t 'a value changed by hand is drift' status 2 nodeprov verify
	t '… and is planned' status 2 nodeprov plan --detailed-exitcode
	t '… and is put right by apply' status 0 nodeprov apply
	t '… which is read back' prints 262144 live vm.max_map_count
}

test_services() {
	t 'client and backends come up' silent add_cluster
	services_answer 'after boot'
	t 'both backends are used' prints 'first second ' both_backends
	t 'no endpoints: TCP, IPv4 is refused at once' refused tcp 10.43.0.11:80
	t 'no endpoints: TCP, IPv6 is refused at once' refused tcp '[fd43::11]:80'
	t 'no endpoints: UDP, IPv4 is refused at once' refused udp 10.43.0.11:53
	t 'a backend itself still answers' prints first pod client ./probe tcp 10.42.2.2:8080
	t 'systemctl status lbd shows the counts' shows 'Status: ".*2 services' systemctl status --no-pager lbd.service
	t 'lbd status' status 0 lbd status
	t 'lbd service list names the ClusterIP' shows '10\.43\.0\.10:80' lbd service list
	note systemctl status --no-pager -n 3 lbd.service
	note lbd status
	note lbd service list
}

# exposure: of lbd.service as systemd reckons it, in tenths.
exposure() { systemd-analyze security --no-pager lbd.service | sed -n 's/.*exposure level for lbd.service: \([0-9]*\)\.\([0-9]\).*/\1\2/p'; }
exposure_at_most() { [ "$(exposure)" -le "$1" ] || systemd-analyze security --no-pager lbd.service | grep -e '✗' -e exposure; }

restarted() { [ "$(property lbd.service MainPID)" != "$1" ] && [ "$(property lbd.service ActiveState)" = active ]; }

test_kill() {
	: >"$state/probes"
	# shellcheck disable=SC2016 # for the inner shell
	pod client sh -c '
		while [ ! -e "$1/stop" ]; do
			for to in "tcp 10.43.0.10:80" "udp 10.43.0.10:53" "tcp [fd43::10]:80"; do
				if out=$(./probe $to 2>&1); then echo ok; else echo "lost: $to: $out"; fi
			done
		done >"$1/probes"' sh "$state" &
	until_true 30 grep -q ok "$state/probes"
	kill_pid=$(property lbd.service MainPID)
	kill -9 "$kill_pid"
	t 'kill -9 lbd: systemd restarts it' until_true 60 restarted "$kill_pid"
	kill_probes=$(wc -l <"$state/probes")
	until_true 30 sh -c "[ \$(wc -l <$state/probes) -ge $((kill_probes + 6)) ]"
	: >"$state/stop"
	wait $!
	t "kill -9 lbd: no connection of $(wc -l <"$state/probes") is lost" silent sh -c "grep lost $state/probes || true"
	rm -f "$state/probes" "$state/stop"
	t 'kill -9 lbd: status is back' until_true 20 shows 'Status: ".*2 services' systemctl status --no-pager lbd.service
	services_answer 'after kill -9'

	t 'lbd stops' status 0 systemctl stop lbd.service
	t 'lbd stopped: ClusterIP, IPv4' shows '^(first|second)$' pod client ./probe tcp 10.43.0.10:80
	t 'lbd stopped: ClusterIP, IPv6' prints six pod client ./probe tcp '[fd43::10]:80'
	t 'lbd starts again' status 0 systemctl start lbd.service
	t "lbd's exposure is at most 3.5 ($(exposure) tenths)" exposure_at_most 35
}

test_rollback() {
	# Before nodeprov the first boot had the kernel's own value; the second has that of systemd-sysctl.
	rollback_map_count=65530
	[ "$boot" = 1 ] || rollback_map_count=100000
	t 'rollback' status 0 nodeprov rollback
	values_are 'after rollback' 0 0 4096 $rollback_map_count 1500
	note systemctl is-active lbd.service
	t 'apply after rollback' status 0 nodeprov apply
	values_are 'after apply' 1 1 8192 262144 1400
	t 'plan after apply: nothing to change' status 0 nodeprov plan --detailed-exitcode
	t 'lbd is active after apply' until_true 30 systemctl --quiet is-active lbd.service
	services_answer 'after apply'
}

boot=$(boots)
begin
test_boot
test_profile
test_services
test_kill
test_rollback
note systemd-analyze --no-pager critical-chain lbd.service
finish "$1"
