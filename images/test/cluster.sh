# shellcheck shell=sh
# A client and two backends beside the node, as pods are: a network namespace
# and a cgroup each. Addresses are those of user-data.example.

# pod NAME COMMAND...: runs the command in the pod.
pod() {
	pod_name=$1
	shift
	# shellcheck disable=SC2016 # for the inner shell
	sh -c 'echo 0 >"/sys/fs/cgroup/$1/cgroup.procs" && shift && exec "$@"' pod "$pod_name" \
		nsenter --net="/run/netns/$pod_name" "$@"
}

# add_pod NAME NODE4 NODE6 ADDRESS...: the node's end of the veth has the first two, the pod the others.
add_pod() {
	add_name=$1 add_node4=$2 add_node6=$3
	shift 3
	# Directly below the root: kubelet's pods are in slices of their own too, not in system.slice.
	mkdir -p "/sys/fs/cgroup/$add_name"
	ip netns add "$add_name"
	ip link add "$add_name" type veth peer name eth0 netns "$add_name"
	ip addr add "$add_node4/24" dev "$add_name"
	ip addr add "$add_node6/64" dev "$add_name" nodad
	ip link set "$add_name" up
	ip -n "$add_name" link set lo up
	for add_addr in "$@"; do
		case $add_addr in
		*:*) ip -n "$add_name" addr add "$add_addr" dev eth0 nodad ;;
		*) ip -n "$add_name" addr add "$add_addr" dev eth0 ;;
		esac
	done
	ip -n "$add_name" link set eth0 up
	ip -n "$add_name" route add default via "$add_node4"
	ip -n "$add_name" route add default via "$add_node6"
}

# add_cluster: pod "client", and pod "server" with the backends. Prints what went wrong.
add_cluster() {
	add_pod client 10.42.1.1 fd42:1::1 10.42.1.2/24 fd42:1::2/64
	add_pod server 10.42.2.1 fd42:2::1 10.42.2.2/24 10.42.2.3/24 fd42:2::2/64
	for serve in 10.42.2.2:8080=first 10.42.2.3:8080=second '[fd42:2::2]:8080=six' \
		10.42.2.2:5353=first 10.42.2.3:5353=second '[fd42:2::2]:5353=six'; do
		# exec, for the shell itself keeps the output open too, and the caller waits for its end.
		{ exec >/dev/null 2>&1 && pod server ./probe serve "${serve%=*}" "${serve#*=}"; } &
	done
	for serve in tcp/10.42.2.2:8080 tcp/10.42.2.3:8080 'tcp/[fd42:2::2]:8080' \
		udp/10.42.2.2:5353 udp/10.42.2.3:5353 'udp/[fd42:2::2]:5353'; do
		until_true 20 pod client ./probe "${serve%/*}" "${serve#*/}" >/dev/null 2>&1 || echo "$serve does not answer"
	done
}
