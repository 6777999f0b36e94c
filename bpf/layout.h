// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//go:build ignore

// The layout of the pinned maps. A change here is a new layout version: see
// "Maps" in docs/ARCHITECTURE.md.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// An address of either family: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d.
struct address {
	__be32 word[4];
};

struct frontend_key {
	struct address addr;
	__be16 port;
	__u8 protocol;
	__u8 scope; // 0: the same for clients inside and outside
};
_Static_assert(sizeof(struct frontend_key) == 20, "padding would be part of the key");

// The service that a frontend leads to. The kernel gives a deleted element away at
// once, so that a reader that had found it may read another frontend's value: check
// tells.
struct frontend {
	__u32 service;
	__u32 check; // see check() in sock.c
};
_Static_assert(sizeof(struct frontend) == 8, "must be one load");

// A backend set. Readers load it as one 8-byte word, so that generation and
// count always belong together.
struct service {
	__u32 generation;
	__u16 count; // slots 0..count-1 of this generation exist
	__u16 flags; // none yet
};
_Static_assert(sizeof(struct service) == 8, "must be one load");

struct backend_key {
	__u32 service;
	__u32 generation;
	__u32 slot;
};
_Static_assert(sizeof(struct backend_key) == 12, "padding would be part of the key");

struct backend {
	struct address addr;
	__be16 port;
	__u16 flags; // none yet
};
_Static_assert(sizeof(struct backend) == 20, "no padding");

// What people call a service, and what identifies it over restarts. 136 bytes
// make an element of 192 with the kernel's header.
struct service_name {
	__u8 family; // 4 or 6
	__u8 name[135];
};
_Static_assert(sizeof(struct service_name) == 136, "no padding");

// What a socket believes to talk to, and what it really talks to.
struct translation {
	struct address backend;
	struct address frontend;
	__be16 backend_port; // 0: unused
	__be16 frontend_port;
	__u32 slot; // the backend's when it was chosen: where to look for it first
};
_Static_assert(sizeof(struct translation) == 40, "no padding");

// In place of a slot: the flow has another backend now, but replies may come yet.
#define SLOT_LEFT 0xffffffff

// A connected socket has one translation.
struct peer {
	struct bpf_spin_lock lock;
	struct translation t;
};

#define PEERS 4

// An unconnected UDP socket may talk to several services in turn. The oldest
// makes room.
struct peers {
	struct bpf_spin_lock lock;
	__u32 next;
	struct translation t[PEERS];
};

// Counted per CPU in the map counters_v1.
enum counter {
	COUNTER_REFUSED,         // no backend: the connection was refused
	COUNTER_MISSING_BACKEND, // a slot that must exist did not: a defect
	COUNTER_NO_STORAGE,      // no memory for the reverse translation
	COUNTERS,
};
