#!/bin/bash
# The boot test of the node image: builds the image with this repository's
# binaries, boots it twice in QEMU, and tests it from inside.
set -Eeuo pipefail
trap 'echo "test-vm: line $LINENO: $BASH_COMMAND: status $?" >&2' ERR

usage() {
	cat <<'U'
usage: test-vm.sh [--bin DIR] [--cache DIR] [--timeout SECONDS] [--help]
  --bin DIR          where nodeprov, lbd and probe are (default: bin of the repository)
  --cache DIR        for the Debian root file system and the logs (default: .cache/images)
  --timeout SECONDS  of both boots together (default: 600)

Must be run as root. Logs stay in CACHE/run. Exit status 0 if every test passed.
U
}

here=$(cd "$(dirname "$0")" && pwd)

main() {
	local bin=$here/../bin cache=$here/../.cache/images limit=600
	while (($#)); do
		case $1 in
		--bin) bin=$2 && shift ;;
		--cache) cache=$2 && shift ;;
		--timeout) limit=$2 && shift ;;
		--help | -h) usage && return ;;
		*) usage >&2 && return 64 ;;
		esac
		shift
	done
	if [[ ! -x $bin/probe ]]; then
		echo "test-vm: no $bin/probe (run make build)" >&2
		return 1
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
	mkdir "$work/test"
	cp "$here"/test/*.sh "$bin/probe" "$work/test"
	cat "$here/user-data.example" "$here/test/user-data.more" >"$work/user-data"
	"$here/seed.sh" --user-data "$work/user-data" --network-config "$here/test/network-config" "$work/seed.img"
	built=$SECONDS

	local rc=0
	"$here/boot.sh" --image "$work/image" --test "$work/test" --seed "$work/seed.img" \
		--run "$work/run" --timeout "$limit" || rc=$?
	rm -rf "$cache/run"
	mv "$work/run" "$cache/run"

	local result=$cache/run/result.log passed failed
	passed=$(grep -c '^ok ' "$result" || true)
	failed=$(grep -c '^not ok ' "$result" || true)
	if ((failed)); then
		echo "test-vm: failed:"
		grep '^not ok ' "$result" | sed 's/^/  /'
	fi
	echo "test-vm: $passed passed, $failed failed; image $((built - start)) s, both boots $((SECONDS - built)) s; logs in $cache/run"
	# Both must agree, lest a test that ended early pass for one that passed.
	((rc == 0 && failed == 0 && passed > 0))
}

main "$@"
