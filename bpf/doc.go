// Package bpf is the datapath: BPF programs on socket hooks, the pinned maps
// they read, and Datapath, which hides both. Nothing of it is detached when the
// process ends.
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type frontend_key -type frontend -type service -type backend_key -type backend -type service_name sock sock.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
