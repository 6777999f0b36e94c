#!/bin/sh
# shellcheck source-path=SCRIPTDIR
# Runs in the container, after each of four boots.
cd "$(dirname "$0")" || exit 1
# shellcheck source=SCRIPTDIR/../../images/test/tap.sh
. ./tap.sh
state=/var/tmp/nodeprov-test
PATH=/usr/local/bin:$PATH

# stamp UNIT PROPERTY: microseconds since the kernel started; 0 for never.
stamp() { systemctl show -P "$2TimestampMonotonic" "$1"; }
in_order() {
	order_a=$(stamp "$1" "$2")
	order_b=$(stamp "$3" "$4")
	echo "$1 $2 at $order_a us, $3 $4 at $order_b us"
	[ "$order_a" -gt 0 ] && [ "$order_b" -gt 0 ] && [ "$order_a" -le "$order_b" ]
}
property() { systemctl show -P "$2" "$1"; }
live() { cat "/proc/sys/$(echo "$1" | tr . /)"; }
mtu() { cat "/sys/class/net/$1/mtu"; }
states() { echo "$(property nodeprov-watch.service SubState) $(property nodeprov-watch.service NRestarts)"; }
# soon SECONDS COMMAND...: until_true, and only the last try's output.
soon() {
	soon_limit=$1
	shift
	until_true "$soon_limit" sh_quiet "$@" || "$@"
}
sh_quiet() { "$@" >/dev/null 2>&1; }
# jobs: what the boot still waits for; we are a part of it.
jobs() { systemctl list-jobs --no-legend --plain | awk '$2 != "nodeprov-test.service" && $2 != "graphical.target"'; }
no_cycle() { ! journalctl -b -o cat | grep -i 'ordering cycle'; }
units='nodeprov-early.service nodeprov-apply.service nodeprov-watch.service nodeprov-verify.service nodeprov-verify.timer lbd.service'
file_is() { [ "$(cat "$1")" = "$2" ]; }   # file_is FILE TEXT
unit_is() { [ "$(property "$1" "$2")" = "$3" ]; } # unit_is UNIT PROPERTY TEXT
tells() { [ "$(systemctl "$1" "$2")" = "$3" ]; } # tells VERB UNIT WORD
gone() { ! [ -e "$1" ]; }

# tree: all files, for a comparison. What the system writes by itself is left out.
tree() {
	find / -xdev \( -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd \
		-o -path /proc -o -path /sys -o -path /dev -o -path /test -o -path /out -o -path /root \) -prune -o -printf '%p %y %m %u %s %l\n' |
		awk '{ print $1, $2, $3, $4, $2 == "d" ? "" : $5 "/" $6 }' | sort
}

# healed DEVICE MTU: it has the MTU again; says after how many milliseconds.
healed() {
	healed_start=$(date +%s%N)
	until [ "$(mtu "$1")" = "$2" ]; do
		[ $((($(date +%s%N) - healed_start) / 1000000)) -lt 1000 ] || return 1
	done
	echo "# $1 healed after $((($(date +%s%N) - healed_start) / 1000000)) ms" >&3
}
exec 3>&1

values_are() { # values_are WHEN FORWARD SOMAXCONN MTU CONTENT
	t "$1: net.ipv4.ip_forward is $2" prints "$2" live net.ipv4.ip_forward
	t "$1: net.core.somaxconn is $3" prints "$3" live net.core.somaxconn
	t "$1: MTU of np0 is $4" prints "$4" mtu np0
	t "$1: the file has $5" prints "$5" cat /etc/nodeprov-test.conf
}

# holder: how many of the watch's descriptors it is. The device's directory is one of
# a mount namespace that may be gone.
holder() { find "/proc/$(property nodeprov-watch.service MainPID)/fd" -lname '*cpu_dma_latency*' | wc -l; }

first_boot() {
	tree >$state/before
	live net.core.somaxconn >$state/somaxconn
	t 'install' status 0 ./nodeprov install --lbd ./lbd
	t 'install again: nothing to change' prints 'Nothing to change.' ./nodeprov install --lbd ./lbd
	t 'enabled' prints "$(printf 'enabled\nenabled\nenabled\nenabled')" systemctl is-enabled nodeprov-early.service nodeprov-apply.service nodeprov-watch.service nodeprov-verify.timer
	t 'the watch runs' soon 10 shows '^Idle: nothing was applied' property nodeprov-watch.service StatusText
	t 'the timer runs' prints active systemctl is-active nodeprov-verify.timer
	# shellcheck disable=SC2086 # a list
	t 'systemd-analyze verify is clean' silent systemd-analyze --man=no verify $units nodeprov-nic@np0.service
	t 'udevadm takes the rule' shows 'nodeprov-nic@' grep -h SYSTEMD_WANTS /etc/udev/rules.d/82-nodeprov.rules
	t 'without a profile, apply says so and the boot goes on' status 0 nodeprov apply --boot
	t 'nic@ without a profile is no failure' status 0 systemctl start nodeprov-nic@np0.service
	cp profile.hcl /etc/nodeprov/profile.hcl
	# At boot the device comes before the apply: the profile is the one that will be.
	t 'nic@ before the first apply sets the device' status 0 systemctl start nodeprov-nic@np0.service
	t 'nic@ before the first apply: MTU is 9000' prints 9000 mtu np0
	t 'nic@ before the first apply: no more than that' prints 0 live net.ipv4.ip_forward
	for u in $units nodeprov-nic@np0.service; do
		echo "# exposure: $u $(systemd-analyze --no-pager security "$u" 2>/dev/null | tail -n 1)"
	done
}

test_boot() { # the second boot and the third
	t 'the boot came to an end' soon 30 silent jobs
	t 'no failed unit' silent systemctl --failed --no-legend --plain
	t 'no ordering cycle' no_cycle
	t 'nodeprov-early: succeeded' prints success property nodeprov-early.service Result
	t 'nodeprov-early: done before network-pre.target' in_order nodeprov-early.service ExecMainExit network-pre.target ActiveEnter
	t 'nodeprov-early: done before sysinit.target' in_order nodeprov-early.service ExecMainExit sysinit.target ActiveEnter
	t 'nodeprov-apply: after network.target' in_order network.target ActiveEnter nodeprov-apply.service ExecMainStart
	t 'nodeprov-apply: succeeded' prints success property nodeprov-apply.service Result
	t 'nodeprov-watch: after nodeprov-apply' in_order nodeprov-apply.service ExecMainExit nodeprov-watch.service ExecMainStart
	t 'nodeprov-watch: ready, never restarted' prints 'running 0' states
	values_are 'after boot' 1 8192 9000 first
	t 'the unit runs' prints active systemctl is-active nodeprov-test-job.service
	t 'the unit is enabled' prints enabled systemctl is-enabled nodeprov-test-job.service
	t 'irqbalance is masked' tells is-enabled irqbalance.service masked
	t 'irqbalance does not run' tells is-active irqbalance.service inactive
	t 'the latency is held' soon 5 shows 'wake-up latency held at 10 us' property nodeprov-watch.service StatusText
}

# restarted PID: the watch runs as another process.
restarted() { ! unit_is nodeprov-watch.service MainPID "$1" && unit_is nodeprov-watch.service SubState running; }

test_watch() {
	t 'watch: has the device' soon 5 shows '^Watching [0-9]+ settings? of 1 device' property nodeprov-watch.service StatusText
	ip link set np0 mtu 1400
	t 'watch: MTU changed by hand is healed within a second' healed np0 9000
	ip link del np0
	ip link add np0 type veth peer name np1
	t 'watch: a device that is made anew is healed within a second' healed np0 9000
	for _ in 1 2 3 4 5 6; do
		ip link set np0 mtu 1400
		until_true 1 file_is /sys/class/net/np0/mtu 9000 || break
	done
	t 'watch: it does not fight for ever' prints 1400 mtu np0
	t 'watch: and says so' soon 5 shows 'gave up on 1 setting' property nodeprov-watch.service StatusText
	t 'watch: in the status too' shows 'nic/np0/mtu' nodeprov status
	t 'watch: verify fails' status 1 systemctl start nodeprov-verify.service
	t 'watch: the verification is a failed unit' prints failed systemctl is-failed nodeprov-verify.service
	t 'watch: an apply sets it again' status 0 nodeprov apply
	t 'watch: MTU is 9000' prints 9000 mtu np0
	t 'watch: verify succeeds' status 0 systemctl start nodeprov-verify.service

	t 'latency: one descriptor is kept' prints 1 property nodeprov-watch.service NFileDescriptorStore
	t 'latency: the watch holds it' prints 1 holder
	pid=$(property nodeprov-watch.service MainPID)
	kill -9 "$pid"
	t 'kill -9: systemd restarts the watch' soon 20 restarted "$pid"
	t 'kill -9: the descriptor is kept' prints 1 property nodeprov-watch.service NFileDescriptorStore
	t 'kill -9: the watch holds it again' prints 1 holder
	t 'restart' status 0 systemctl restart nodeprov-watch.service
	t 'restart: the descriptor is kept' prints 1 property nodeprov-watch.service NFileDescriptorStore
	t 'restart: the watch holds it again' prints 1 holder
}

reverted() { file_is /proc/sys/net/core/somaxconn 8192 && file_is /etc/nodeprov-test.conf first && try_is_over; }

# try_is_over: nothing waits to be confirmed; that it was reverted is kept.
try_is_over() { gone /var/lib/nodeprov/try.json || grep -q '"reverted"' /var/lib/nodeprov/try.json; }

test_try() {
	t 'try: applied' status 0 nodeprov apply --try 5s tried.hcl
	values_are 'tried' 1 9999 9000 second
	t 'try: reverted when nobody confirms' soon 30 file_is /proc/sys/net/core/somaxconn 8192
	t 'try: over' soon 10 try_is_over
	values_are 'reverted' 1 8192 9000 first

	# Killed as soon as it has written something.
	nodeprov apply --try 5s tried.hcl >/dev/null 2>&1 &
	try_pid=$!
	t 'try, killed: it was at work' soon 10 file_is /proc/sys/net/core/somaxconn 9999
	kill -9 $try_pid 2>/dev/null
	wait $try_pid
	t 'try, killed: reverted all the same' soon 30 reverted

	t 'try, confirmed' status 0 nodeprov apply --try 5s tried.hcl
	t 'try, confirmed: confirm' status 0 nodeprov confirm
	t 'try, confirmed: no timer is left' silent sh -c 'systemctl list-timers --all --no-legend | grep -i nodeprov | grep -v verify || true'
	values_are 'confirmed' 1 9999 9000 second
	t 'back to the profile' status 0 nodeprov apply
	cp tried.hcl /etc/nodeprov/profile.hcl
	t 'try, then a reboot' status 0 nodeprov apply --try 1h
	t 'try, then a reboot: the file is the new one' prints second cat /etc/nodeprov-test.conf
}

test_upgrade() {
	sed -i 's/^Description=.*/Description=an older version/' /etc/systemd/system/nodeprov-watch.service
	rm /etc/udev/rules.d/82-nodeprov.rules
	pid=$(property nodeprov-watch.service MainPID)
	t 'upgrade' shows '^2 changes made' ./nodeprov install --lbd ./lbd
	t 'upgrade: the watch is a new process' soon 10 restarted "$pid"
	t 'upgrade: with the new unit' shows 'watch over' property nodeprov-watch.service Description
}

test_uninstall() {
	t 'uninstall' status 0 nodeprov uninstall --restore --purge
	t 'uninstall: no unit is left' silent sh -c 'systemctl list-units --all --no-legend --plain "nodeprov-[a-s]*" "nodeprov-[u-z]*" "lbd*" | grep -v not-found || true'
	t 'uninstall: no process is left' silent sh -c 'pgrep -x nodeprov || true'
	tree >$state/after
	t 'uninstall: the file of the profile is gone' gone /etc/nodeprov-test.conf
	t 'uninstall: the MTU is as it was' prints 1500 mtu np0
	# Several boots after the first apply: each began with the machine's own values.
	t 'uninstall: net.core.somaxconn is as it was' prints "$(cat $state/somaxconn)" live net.core.somaxconn
	t 'uninstall: irqbalance is enabled' prints enabled systemctl is-enabled irqbalance.service
	t 'uninstall: /run/nodeprov is gone' gone /run/nodeprov
}

test_gone() {
	tree >$state/after
	t 'no file is left, none is missing, but for the profile' prints '/etc/nodeprov
/etc/nodeprov/profile.hcl' sh -c "diff $state/before $state/after | sed -n 's/^[<>] \\([^ ]*\\) .*/\\1/p'"
	t 'no unit is left' silent sh -c 'systemctl list-units --all --no-legend --plain "nodeprov-[a-s]*" "nodeprov-[u-z]*" "lbd*" | grep -v not-found || true'
	t 'no failed unit (gone)' silent systemctl --failed --no-legend --plain
	t 'net.core.somaxconn is as it was' prints "$(cat $state/somaxconn)" live net.core.somaxconn
	t 'net.ipv4.ip_forward is as it was' prints 0 live net.ipv4.ip_forward
	t 'irqbalance runs' prints active systemctl is-active irqbalance.service
}

mkdir -p $state
boot=$(($(cat $state/boot 2>/dev/null || echo 0) + 1))
echo $boot >$state/boot
echo "# boot $boot, up $(cut -d' ' -f1 /proc/uptime) s, $(systemctl --version | head -n1)"
case $boot in
1) first_boot ;;
2)
	test_boot
	test_watch
	test_try
	;;
3)
	test_boot
	t 'tried and never confirmed: the status says so' shows '[Cc]onfirm' nodeprov status
	test_upgrade
	test_uninstall
	;;
4) test_gone ;;
esac
[ "$tap_failed" = 0 ] || note journalctl --no-pager -b -o short-monotonic -n 200
tap_end || : >$state/failed
if [ $boot -lt 4 ]; then
	systemctl --no-block reboot
	exit
fi
if [ -e $state/failed ]; then echo 'END failed'; else echo 'END ok'; fi
systemctl --no-block poweroff
