#!/bin/bash
# The boot tests of the node image: builds the image with this repository's
# binaries, boots it in QEMU, and tests it from inside.
set -Eeuo pipefail
trap 'echo "test-vm: line $LINENO: $BASH_COMMAND: status $?" >&2' ERR

usage() {
	cat <<'U'
usage: test-vm.sh [--bin DIR] [--cache DIR] [--jobs N] [--timeout SECONDS] [--help] [TEST...]
  TEST               one of those below; default: all of them
  --bin DIR          where nodeprov, lbd and probe are (default: bin of the repository)
  --cache DIR        for the Debian root file system and the logs (default: .cache/images)
  --jobs N           machines that run at a time (default: one for each CPU)
  --timeout SECONDS  of each test, over all of its boots (default: 1500)

Must be run as root. Logs stay in CACHE/run/TEST. Exit status 0 if every test passed.

Tests, named by what is shown and the kernel that it is shown on:
U
	cases | cut -d'|' -f1 | sed 's/^/  /'
}

here=$(cd "$(dirname "$0")" && pwd)

# cases: name, user-data, script of test/ with its arguments, options of boot.sh. The longest first.
cases() {
	sed 's/ *| */|/g' <<'C'
tuning-6.12   | tuning   | tuning.sh --whole | --kernel 6.12 --grub --machine numa
services-6.1  | services | services.sh 2     | --kernel 6.1
tuning-6.1    | tuning   | tuning.sh         | --kernel 6.1 --grub --machine numa
crash-6.12    | none     | crash.sh          | --kernel 6.12 --durable --append cloud-init=disabled
services-6.12 | services | services.sh 1     | --kernel 6.12
C
}

# user_data NAME: prints it.
user_data() {
	case $1 in
	services) cat "$here/user-data.example" "$here/test/user-data.more" ;;
	tuning)
		# From the second boot on cloud-init has nothing to do, and takes half of the time for it.
		printf '#cloud-config\nhostname: node1\nwrite_files:\n  - path: /etc/cloud/cloud-init.disabled\n  - path: /etc/nodeprov/profile.hcl\n    content: |\n'
		sed 's/^./      &/' "$here/test/tuning.hcl"
		;;
	none) printf '#cloud-config\nhostname: node1\n' ;;
	esac
}

# run WORK BIN LIMIT NAME DATA SCRIPT OPTIONS: one test, from its seed to its verdict.
run() {
	local work=$1 bin=$2 limit=$3 name=$4 data=$5 script=$6 options=() rc=0
	read -ra options <<<"$7"
	local dir=$work/$name start=$SECONDS
	mkdir -p "$dir/test"
	cp "$here"/test/*.sh "$here"/test/*.hcl "$bin/probe" "$dir/test"
	echo "exec sh ./$script" >"$dir/test/run.sh"
	user_data "$data" >"$dir/user-data"
	"$here/seed.sh" --user-data "$dir/user-data" --network-config "$here/test/network-config" "$dir/seed.img"
	"$here/boot.sh" --image "$work/image" --test "$dir/test" --seed "$dir/seed.img" --run "$dir/run" \
		--timeout "$limit" "${options[@]}" || rc=$?
	local passed failed
	passed=$(grep -c '^ok ' "$dir/run/result.log" || true)
	failed=$(grep -c '^not ok ' "$dir/run/result.log" || true)
	printf '%-14s %3d passed, %d failed, %d boots, %3d s\n' "$name" "$passed" "$failed" \
		"$(sed -n 's/^# boot \([0-9]*\),.*/\1/p' "$dir/run/result.log" | tail -n 1)" $((SECONDS - start)) >"$dir/summary"
	# Both must agree, lest a test that ended early pass for one that passed.
	if ((rc == 0 && failed == 0 && passed > 0)); then
		touch "$dir/passed"
	fi
}

main() {
	local bin=$here/../bin cache=$here/../.cache/images jobs limit=1500 chosen=()
	jobs=$(nproc)
	while (($#)); do
		case $1 in
		--bin) bin=$2 && shift ;;
		--cache) cache=$2 && shift ;;
		--jobs) jobs=$2 && shift ;;
		--timeout) limit=$2 && shift ;;
		--help | -h) usage && return ;;
		-*) usage >&2 && return 64 ;;
		*) chosen+=("$1") ;;
		esac
		shift
	done
	if [[ ! -x $bin/probe ]]; then
		echo "test-vm: no $bin/probe (run make build)" >&2
		return 1
	fi
	local name data script options list=()
	while IFS='|' read -r name data script options; do
		if ((!${#chosen[@]})) || [[ " ${chosen[*]} " == *" $name "* ]]; then
			list+=("$name|$data|$script|$options")
		fi
	done < <(cases)
	if ((!${#list[@]} || (${#chosen[@]} && ${#list[@]} != ${#chosen[@]}))); then
		echo "test-vm: ${chosen[*]}: not all of them are tests" >&2
		usage >&2
		return 64
	fi
	"$here/packages.sh"
	mkdir -p "$cache"
	cache=$(cd "$cache" && pwd)

	# Another process may be running the test too: each has a directory of its own until it ends.
	local work
	work=$(mktemp -d "$cache/test.XXXXXX")
	# shellcheck disable=SC2064 # the directory of now
	trap "rm -rf '$work'" EXIT

	local start=$SECONDS built
	"$here/build.sh" --test --bin "$bin" --cache "$cache" --out "$work/image"
	built=$SECONDS

	local item running=0 rc=0
	for item in "${list[@]}"; do
		if ((running >= jobs)); then
			wait -n
			running=$((running - 1))
		fi
		IFS='|' read -r name data script options <<<"$item"
		{ run "$work" "$bin" "$limit" "$name" "$data" "$script" "$options" 2>&1 | sed -u "s/^/$name: /"; } &
		running=$((running + 1))
	done
	while ((running)); do
		wait -n
		running=$((running - 1))
	done

	rm -rf "$cache/run"
	mkdir "$cache/run"
	for item in "${list[@]}"; do
		name=${item%%|*}
		mv "$work/$name/run" "$cache/run/$name"
		grep '^not ok ' "$cache/run/$name/result.log" | sed "s/^/test-vm: $name: /" || true
	done
	for item in "${list[@]}"; do
		sed 's/^/test-vm: /' "$work/${item%%|*}/summary"
		[[ -e $work/${item%%|*}/passed ]] || rc=1
	done
	echo "test-vm: image $((built - start)) s, all machines $((SECONDS - built)) s; logs in $cache/run"
	exit $rc
}

main "$@"
