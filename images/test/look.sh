# shellcheck shell=sh source-path=SCRIPTDIR
# What systemd and the kernel say of the node, asked without nodeprov.

# shellcheck source=tap.sh
. ./tap.sh
state=/var/lib/nodeprov-test
# All units of this product. An instance stands for a template.
units=
for units_path in /etc/systemd/system/nodeprov-*.service /etc/systemd/system/nodeprov-*.timer /etc/systemd/system/lbd.service; do
	units_name=${units_path##*/}
	case $units_name in
	nodeprov-test* | *'*'*) ;;
	*@.*) units="$units ${units_name%@.*}@eth0.${units_name#*@.}" ;;
	*) units="$units $units_name" ;;
	esac
done

# stamp UNIT PROPERTY: microseconds since the kernel started; 0 for never.
stamp() { systemctl show -P "$2TimestampMonotonic" "$1"; }

# in_order UNIT PROPERTY UNIT PROPERTY: both happened, in this order.
in_order() {
	order_a=$(stamp "$1" "$2")
	order_b=$(stamp "$3" "$4")
	echo "$1 $2 at $order_a us, $3 $4 at $order_b us"
	[ "$order_a" -gt 0 ] && [ "$order_b" -gt 0 ] && [ "$order_a" -le "$order_b" ]
}

# property UNIT NAME: its value.
property() { systemctl show -P "$2" "$1"; }

# live KEY: a sysctl as the kernel has it.
live() { tr '\t' ' ' <"/proc/sys/$(echo "$1" | tr . /)"; }

# mtu DEVICE: as the kernel has it.
mtu() { cat "/sys/class/net/$1/mtu"; }

no_cycle() { ! journalctl -b -o cat | grep -i 'ordering cycle'; }
no_kernel_warning() { ! journalctl -b -k -o cat | grep -E -A20 'WARNING: CPU|BUG:|Oops'; }

# boots: how often this machine was switched on or rebooted.
boots() { wc -l <$state/boots; }

# now_ms: milliseconds since some time.
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# sound_boot: what every boot must be like.
sound_boot() {
	t 'the boot came to an end' prints running systemctl is-system-running --wait
	t 'no failed unit' silent systemctl --failed --no-legend --plain
	t 'no ordering cycle' no_cycle
	t 'no warning of the kernel' no_kernel_warning
	# shellcheck disable=SC2086 # a list
	t 'systemd-analyze verify is clean' silent systemd-analyze --man=no verify $units
}

# begin: the head of a boot's results.
begin() {
	echo "# boot $(boots), up $(cut -d' ' -f1 /proc/uptime) s, $(uname -r), $(systemctl --version | head -n1)"
}

# finish LAST: ends a boot's results; the test has as many boots, or the machine reboots for the next.
finish() {
	note systemd-analyze time
	if [ "$tap_failed" != 0 ]; then
		note journalctl --no-pager -b -o short-monotonic -p warning -n 60
		note journalctl --no-pager -b -o short-monotonic -u 'nodeprov-*' -u lbd -n 120
	fi
	tap_end || : >$state/failed
	echo "# boot $(boots) ends, up $(cut -d' ' -f1 /proc/uptime) s"
	if [ "$(boots)" -lt "$1" ]; then
		echo reboot >$state/next
	elif [ -e $state/failed ]; then
		echo 'END failed'
	else
		echo 'END ok'
	fi
}
