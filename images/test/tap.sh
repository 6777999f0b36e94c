# shellcheck shell=sh
# Results as TAP 13 lines: "ok 3 - text", "not ok 4 - text"; everything else is a "# comment".

tap_count=0
tap_failed=0

# t TEXT COMMAND...: passes if the command does; its output is shown if not.
t() {
	tap_text=$1
	shift
	tap_count=$((tap_count + 1))
	tap_status=0
	tap_output=$("$@" 2>&1) || tap_status=$?
	if [ $tap_status = 0 ]; then
		echo "ok $tap_count - $tap_text"
		return 0
	fi
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $tap_text"
	printf '%s\nstatus %s of: %s\n' "$tap_output" $tap_status "$*" | sed 's/^/#   /'
	return 0
}

# note COMMAND...: shows a command's output.
note() {
	echo "# \$ $*"
	"$@" 2>&1 | sed 's/^/#   /'
}

# status N COMMAND...: the command ends with status N.
status() {
	status_want=$1
	shift
	status_got=0
	"$@" || status_got=$?
	[ $status_got = "$status_want" ] || {
		echo "status $status_got, want $status_want"
		return 1
	}
}

# prints WANT COMMAND...: the command succeeds and prints exactly this.
prints() {
	prints_want=$1
	shift
	prints_got=$("$@") || {
		echo "$prints_got"
		return 1
	}
	[ "$prints_got" = "$prints_want" ] || {
		echo "got $prints_got, want $prints_want"
		return 1
	}
}

# shows PATTERN COMMAND...: the command succeeds and a line matches the extended regular expression.
shows() {
	shows_want=$1
	shift
	shows_got=$("$@") || {
		echo "$shows_got"
		return 1
	}
	printf '%s\n' "$shows_got" | grep -Eq -- "$shows_want" || {
		printf '%s\nno line matches %s\n' "$shows_got" "$shows_want"
		return 1
	}
}

# silent COMMAND...: the command succeeds and prints nothing.
silent() { prints '' "$@"; }

# until_true SECONDS COMMAND...: the command succeeds within that time.
until_true() {
	until_end=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt $until_end ] || return 1
		sleep 0.2
	done
}

# tap_end: the plan line; fails if a test did.
tap_end() {
	echo "1..$tap_count"
	[ $tap_failed = 0 ]
}
