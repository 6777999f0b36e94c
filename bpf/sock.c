// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//go:build ignore

// Load balancing at the socket: the destination is changed once, when a process
// connects or sends, and no packet is touched afterwards. The hooks see every
// process in the cgroup that they are attached to, in whatever network namespace.

#include <linux/errno.h>
#include <linux/in.h>

#include "layout.h"

char _license[] SEC("license") = "GPL";

// Set by the loader from what the kernel can do. They are frozen before the
// programs are verified, so code behind a false one is never looked at.
const volatile bool have_set_retval = false;        // 5.18
const volatile bool have_skc_to_mptcp_sock = false; // 5.19

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct service);
} services_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct backend_key);
	__type(value, struct backend);
} backends_v1 SEC(".maps");

// For people and for the daemon; no program reads it.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct service_name);
} names_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct peer);
} peer_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct peers);
} peers_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} counters_v1 SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters_v1, &which);

	if (n)
		(*n)++;
}

static __always_inline bool same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}


static __always_inline struct address get4(struct bpf_sock_addr *ctx)
{
	return (struct address){ { 0, 0, bpf_htonl(0xffff), ctx->user_ip4 } };
}

static __always_inline struct address get6(struct bpf_sock_addr *ctx)
{
	return (struct address){ { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
}

static __always_inline void set4(struct bpf_sock_addr *ctx, const struct address *a, __be16 port)
{
	ctx->user_ip4 = a->word[3];
	ctx->user_port = port;
}

static __always_inline void set6(struct bpf_sock_addr *ctx, const struct address *a, __be16 port)
{
	ctx->user_ip6[0] = a->word[0];
	ctx->user_ip6[1] = a->word[1];
	ctx->user_ip6[2] = a->word[2];
	ctx->user_ip6[3] = a->word[3];
	ctx->user_port = port;
}

// refuse makes the system call fail with ECONNREFUSED, or with EPERM where the
// kernel has no way to choose.
static __always_inline int refuse(void)
{
	count(COUNTER_REFUSED);
	if (have_set_retval)
		bpf_set_retval(-ECONNREFUSED);
	return 0;
}

static __always_inline struct service load(const struct service *s)
{
	union {
		__u64 word;
		struct service s;
	} u = { .word = *(const volatile __u64 *)s };

	return u.s;
}

enum verdict {
	NOT_OURS,  // no frontend of ours
	TRANSLATE, // out is filled
	REFUSE,
};

// check ties a frontend's value to its key.
static __always_inline __u32 check(const struct frontend_key *k, __u32 id)
{
	__u32 h = id;

#pragma unroll
	for (int i = 0; i < 4; i++)
		h = (h ^ k->addr.word[i]) * 0x9e3779b1;
	return (h ^ (k->port | k->protocol << 16 | (__u32)k->scope << 24)) * 0x9e3779b1;
}

// find_service returns the ID of the service behind the frontend that a socket
// asks for, 0 for none.
static __always_inline __u32 find_service(struct bpf_sock_addr *ctx, const struct address *addr)
{
	struct frontend_key key = { .addr = *addr, .port = ctx->user_port, .protocol = ctx->protocol };
	struct frontend *f;
	union {
		__u64 word;
		struct frontend f;
	} u;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return 0;
	f = bpf_map_lookup_elem(&frontends_v1, &key);
	if (!f)
		return 0;
	u.word = *(const volatile __u64 *)f;
	return u.f.check == check(&key, u.f.service) ? u.f.service : 0; // it was deleted meanwhile
}

static __always_inline struct backend *slot_of(__u32 id, __u32 generation, __u32 slot)
{
	struct backend_key key = { .service = id, .generation = generation, .slot = slot };

	return bpf_map_lookup_elem(&backends_v1, &key);
}

static __always_inline void fill(struct translation *t, struct bpf_sock_addr *ctx, const struct address *frontend,
				 const struct backend *b, __u32 slot)
{
	t->frontend = *frontend;
	t->frontend_port = ctx->user_port;
	t->backend = b->addr;
	t->backend_port = b->port;
	t->slot = slot;
}

// choose picks a backend of service id at random.
static __always_inline enum verdict choose(struct bpf_sock_addr *ctx, const struct address *frontend, __u32 id,
					   struct service s, struct translation *out)
{
	__u32 slot;
	struct backend *b;

	if (!s.count)
		return REFUSE;
	slot = bpf_get_prandom_u32() % s.count;
	b = slot_of(id, s.generation, slot);
	if (!b) {
		count(COUNTER_MISSING_BACKEND);
		return REFUSE;
	}
	fill(out, ctx, frontend, b, slot);
	return TRANSLATE;
}

static __always_inline void remember_on(void *sk, const struct translation *t)
{
	struct peer *p = bpf_sk_storage_get(&peer_v1, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!p) {
		count(COUNTER_NO_STORAGE);
		return;
	}
	bpf_spin_lock(&p->lock);
	p->t = *t;
	bpf_spin_unlock(&p->lock);
}

// mptcp_sock_of returns the MPTCP socket that sk is a subflow of: connect sees the
// first subflow, getpeername the MPTCP socket.
static __always_inline struct mptcp_sock *mptcp_sock_of(struct bpf_sock_addr *ctx, struct bpf_sock *sk)
{
	return have_skc_to_mptcp_sock && ctx->protocol == IPPROTO_TCP ? bpf_skc_to_mptcp_sock(sk) : NULL;
}

// remember makes getpeername and recvmsg show the frontend on a connected socket.
static __always_inline void remember(struct bpf_sock_addr *ctx, const struct translation *t)
{
	struct bpf_sock *sk = ctx->sk;
	struct mptcp_sock *msk;

	if (!sk)
		return;
	remember_on(sk, t);
	msk = mptcp_sock_of(ctx, sk);
	if (msk)
		remember_on(msk, t);
}

// unremember undoes it: the socket connects anew, to something that is no service
// of ours.
static __always_inline void unremember(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct mptcp_sock *msk;

	if (!sk)
		return;
	bpf_sk_storage_delete(&peer_v1, sk);
	msk = mptcp_sock_of(ctx, sk);
	if (msk)
		bpf_sk_storage_delete(&peer_v1, msk);
}

static __always_inline enum verdict on_connect(struct bpf_sock_addr *ctx, const struct address *addr,
					       struct translation *out)
{
	__u32 id = find_service(ctx, addr);
	enum verdict v = NOT_OURS;
	struct service *s;

	if (id) {
		s = bpf_map_lookup_elem(&services_v1, &id);
		v = s ? choose(ctx, addr, id, load(s), out) : REFUSE;
	}
	if (v == TRANSLATE)
		remember(ctx, out);
	else if (v == NOT_OURS) // a UDP socket that is refused stays connected as it was
		unremember(ctx);
	return v;
}

// connected tells whether a UDP socket has a peer. One that was disconnected
// keeps its entry of peer_v1.
static __always_inline bool connected(struct bpf_sock *sk)
{
	return sk->state == BPF_TCP_ESTABLISHED;
}

// recall_peer finds the backend that a UDP socket is connected to, if it believes
// that to be the frontend.
static __always_inline bool recall_peer(struct bpf_sock *sk, const struct address *frontend, __be16 port,
					struct translation *out)
{
	struct peer *p = connected(sk) ? bpf_sk_storage_get(&peer_v1, sk, NULL, 0) : NULL;

	if (!p)
		return false;
	bpf_spin_lock(&p->lock);
	*out = p->t;
	bpf_spin_unlock(&p->lock);
	return out->frontend_port == port && same(&out->frontend, frontend);
}

// recall finds the backend that this socket used for the frontend before.
static __always_inline bool recall(struct peers *p, const struct address *frontend, __be16 port,
				   struct translation *out)
{
	bool found = false;

	bpf_spin_lock(&p->lock);
#pragma unroll
	for (int i = 0; i < PEERS; i++) {
		if (p->t[i].backend_port && p->t[i].slot != SLOT_LEFT && p->t[i].frontend_port == port &&
		    same(&p->t[i].frontend, frontend)) {
			*out = p->t[i];
			found = true;
		}
	}
	bpf_spin_unlock(&p->lock);
	return found;
}

// note remembers a translation of an unconnected socket. There is one per
// backend: of two frontends with the same backend, the last one sent to wins.
static __always_inline void note(struct peers *p, const struct translation *t)
{
	__u32 at = PEERS;

	bpf_spin_lock(&p->lock);
#pragma unroll
	for (__u32 i = 0; i < PEERS; i++) {
		if (p->t[i].frontend_port == t->frontend_port && same(&p->t[i].frontend, &t->frontend))
			p->t[i].slot = SLOT_LEFT;
		if (p->t[i].backend_port == t->backend_port && same(&p->t[i].backend, &t->backend))
			at = i;
	}
	if (at == PEERS)
		at = p->next++;
	p->t[at & (PEERS - 1)] = *t;
	bpf_spin_unlock(&p->lock);
}

// forget drops what is known of a backend, since the socket now talks to it
// under its own address.
static __always_inline void forget(struct peers *p, const struct address *backend, __be16 port)
{
	bpf_spin_lock(&p->lock);
#pragma unroll
	for (int i = 0; i < PEERS; i++)
		if (p->t[i].backend_port == port && same(&p->t[i].backend, backend))
			p->t[i].backend_port = 0;
	bpf_spin_unlock(&p->lock);
}

static __always_inline enum verdict on_sendmsg(struct bpf_sock_addr *ctx, const struct address *addr,
					       struct translation *out)
{
	__u32 id = find_service(ctx, addr);
	struct bpf_sock *sk = ctx->sk;
	struct peers *p = NULL;
	struct service *s, v;
	struct backend *b;

	if (!id) {
		if (sk)
			p = bpf_sk_storage_get(&peers_v1, sk, NULL, 0);
		if (p)
			forget(p, addr, ctx->user_port);
		return NOT_OURS;
	}
	// A connected socket hears its peer alone.
	if (sk && recall_peer(sk, addr, ctx->user_port, out))
		return TRANSLATE;
	s = bpf_map_lookup_elem(&services_v1, &id);
	if (!s)
		return REFUSE;
	v = load(s);
	if (!v.count)
		return REFUSE;
	if (sk)
		p = bpf_sk_storage_get(&peers_v1, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!p) {
		count(COUNTER_NO_STORAGE);
		return choose(ctx, addr, id, v, out);
	}
	// A flow stays with its backend for as long as that serves: the daemon keeps
	// the slots of backends that stay, so one look tells.
	if (recall(p, addr, ctx->user_port, out) && out->slot < v.count) {
		b = slot_of(id, v.generation, out->slot);
		if (b && b->port == out->backend_port && same(&b->addr, &out->backend))
			return TRANSLATE;
	}
	if (choose(ctx, addr, id, v, out) == REFUSE)
		return REFUSE;
	note(p, out);
	return TRANSLATE;
}

// reverse finds the frontend behind which the socket knows this backend.
static __always_inline bool reverse(struct bpf_sock_addr *ctx, const struct address *addr, struct translation *out)
{
	struct bpf_sock *sk = ctx->sk;
	__be16 port = ctx->user_port;
	bool found = false;
	struct peer *p = NULL;
	struct peers *ps;

	if (!sk)
		return false;
	if (ctx->protocol != IPPROTO_UDP || connected(sk))
		p = bpf_sk_storage_get(&peer_v1, sk, NULL, 0);
	if (p) {
		bpf_spin_lock(&p->lock);
		*out = p->t;
		bpf_spin_unlock(&p->lock);
		if (out->backend_port == port && same(&out->backend, addr))
			return true;
	}
	if (ctx->protocol != IPPROTO_UDP)
		return false;
	ps = bpf_sk_storage_get(&peers_v1, sk, NULL, 0);
	if (!ps)
		return false;
	bpf_spin_lock(&ps->lock);
#pragma unroll
	for (int i = 0; i < PEERS; i++) {
		if (ps->t[i].backend_port == port && same(&ps->t[i].backend, addr)) {
			*out = ps->t[i];
			found = true;
		}
	}
	bpf_spin_unlock(&ps->lock);
	return found;
}

static __always_inline int conclude4(struct bpf_sock_addr *ctx, enum verdict v, const struct translation *t)
{
	if (v == REFUSE)
		return refuse();
	if (v == TRANSLATE)
		set4(ctx, &t->backend, t->backend_port);
	return 1;
}

static __always_inline int conclude6(struct bpf_sock_addr *ctx, enum verdict v, const struct translation *t)
{
	if (v == REFUSE)
		return refuse();
	if (v == TRANSLATE)
		set6(ctx, &t->backend, t->backend_port);
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct address addr = get4(ctx);
	struct translation t = {};

	return conclude4(ctx, on_connect(ctx, &addr, &t), &t);
}

// Also sees connections to IPv4-mapped addresses, which are IPv4 connections.
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct address addr = get6(ctx);
	struct translation t = {};

	return conclude6(ctx, on_connect(ctx, &addr, &t), &t);
}

// Also sees what an IPv6 socket sends to an IPv4-mapped address.
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct address addr = get4(ctx);
	struct translation t = {};

	return conclude4(ctx, on_sendmsg(ctx, &addr, &t), &t);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct address addr = get6(ctx);
	struct translation t = {};

	return conclude6(ctx, on_sendmsg(ctx, &addr, &t), &t);
}

static __always_inline int reverse4(struct bpf_sock_addr *ctx)
{
	struct address addr = get4(ctx);
	struct translation t = {};

	if (reverse(ctx, &addr, &t))
		set4(ctx, &t.frontend, t.frontend_port);
	return 1;
}

static __always_inline int reverse6(struct bpf_sock_addr *ctx)
{
	struct address addr = get6(ctx);
	struct translation t = {};

	if (reverse(ctx, &addr, &t))
		set6(ctx, &t.frontend, t.frontend_port);
	return 1;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}
