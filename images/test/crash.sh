#!/bin/sh
# shellcheck source-path=SCRIPTDIR
# nodeprov is killed while it applies, and the machine loses its power: whenever that is,
# a rollback leads back to what the kernel and the files were before. The first boot kills
# and ends in a power cut, the second in another one. The profiles a and b differ in every value.
cd "$(dirname "$0")" || exit 1
# shellcheck source=look.sh
. ./look.sh

# snapshot: all that the two profiles set, as the kernel and the file system have it.
snapshot() {
	awk -F'"' '/^  "/ { print $2 }' crash-a.hcl | while read -r snapshot_key; do
		echo "$snapshot_key = $(live "$snapshot_key")"
	done
	echo "THP $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
	echo "MTU $(mtu eth0)"
	for snapshot_file in /etc/nodeprov-test.conf /etc/nodeprov-test-new.conf; do
		[ ! -e $snapshot_file ] || echo "$(stat -c '%n %a %U %G' $snapshot_file) $(cat $snapshot_file)"
	done
	ls -A /etc/sysctl.d
	echo "unit $(property nodeprov-example.service UnitFileState) $(property nodeprov-example.service ActiveState)"
}

# as_before: the snapshot is that of the beginning.
as_before() {
	snapshot >$state/now
	diff -u $state/before $state/now
}

# random N: 0 to N-1, from the seed that is shown.
random() {
	seed=$(((seed * 1103515245 + 12345) % 2147483648))
	echo $((seed / 65536 % $1))
}

pause() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

# kill_apply PROFILE: kills its apply at a random moment.
kill_apply() {
	nodeprov apply "$1" >/dev/null 2>&1 &
	kill_pid=$!
	random "$duration" >$state/delay # not by $(), whose shell would keep the seed
	pause "$(cat $state/delay)"
	kill -9 $kill_pid 2>/dev/null && kills=$((kills + 1))
	wait $kill_pid 2>/dev/null
}

test_kills() {
	snapshot >$state/before
	note cat $state/before
	apply_start=$(now_ms)
	t 'apply a' status 0 nodeprov apply crash-a.hcl
	duration=$(($(now_ms) - apply_start))
	t 'apply a changes the node' status 1 as_before
	t 'rollback' status 0 nodeprov rollback --to 0
	t 'rollback: all is as before' as_before
	kills=0
	for round in 1 2 3; do
		for profile in a b a; do
			kill_apply crash-$profile.hcl
		done
		t "round $round: status works after kills" status 0 nodeprov status
		t "round $round: rollback" status 0 nodeprov rollback --to 0
		t "round $round: all is as before" as_before
	done
	echo "# $kills of 9 applies were killed within $duration ms"
	t 'most were killed before they ended' test $kills -ge 4
	kill_apply crash-a.hcl
	t 'apply b after a kill' status 0 nodeprov apply crash-b.hcl
	t '… leaves nothing of a' status 0 nodeprov plan --detailed-exitcode crash-b.hcl
	t '… and rolls back' status 0 nodeprov rollback --to 0
	t '… to what was before' as_before
}

# lose_power: in the middle of an endless change between a and b.
lose_power() {
	cp crash-a.hcl /etc/nodeprov/profile.hcl
	sync
	while :; do
		nodeprov apply crash-b.hcl
		nodeprov apply crash-a.hcl
	done >/dev/null 2>&1 &
	random $((2 * duration)) >$state/delay
	pause "$(cat $state/delay)"
	echo CUT
	sleep 60
	echo 'END failed' # there was no power cut
}

test_after_cut() {
	sound_boot
	t 'nodeprov-early: succeeded' prints success property nodeprov-early.service Result
	t 'nodeprov-apply: succeeded' prints success property nodeprov-apply.service Result
	note nodeprov status
	t 'profile a holds' status 0 nodeprov verify
	t '… to the last value' status 0 nodeprov plan --detailed-exitcode
	t 'rollback' status 0 nodeprov rollback --to 0
	t 'rollback: all is as before the first apply ever' as_before
}

begin
seed=$(date +%s)
echo "# seed $seed"
case $(boots) in
1)
	echo before >/etc/nodeprov-test.conf
	chmod 644 /etc/nodeprov-test.conf
	printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/nodeprov-example.service
	systemctl daemon-reload
	test_kills
	echo "$duration" >$state/duration
	tap_end || : >$state/failed
	lose_power
	;;
2)
	duration=$(cat $state/duration)
	test_after_cut
	tap_end || : >$state/failed
	lose_power
	;;
3)
	test_after_cut
	finish 3
	;;
esac
