package bpf

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// barrier waits until every program that was running has ended.
type barrier struct {
	outer, inner *ebpf.Map // nil where membarrier works
}

// newBarrier prepares for kernels that refuse MEMBARRIER_CMD_GLOBAL, which those
// with nohz_full CPUs do, and for machines with one CPU, where it returns at once
// although a preemptible kernel may have stopped a program midway. There, replacing
// the element of a map of maps waits for a grace period inside the kernel
// (maybe_wait_bpf_programs).
func newBarrier() (*barrier, error) {
	if runtime.NumCPU() > 1 && membarrier() == nil {
		return &barrier{}, nil
	}
	return newMapBarrier()
}

func newMapBarrier() (*barrier, error) {
	array := &ebpf.MapSpec{Name: "lbd_inner", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(array)
	if err != nil {
		return nil, fmt.Errorf("grace period: %w", err)
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Name: "lbd_barrier", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: array})
	if err != nil {
		inner.Close()
		return nil, fmt.Errorf("grace period: %w", err)
	}
	return &barrier{outer: outer, inner: inner}, nil
}

// wait returns after a grace period: whatever a program had read before is no
// longer in use. It cannot fail once newBarrier has succeeded.
func (b *barrier) wait() {
	var err error
	if b.outer == nil {
		err = membarrier()
	} else {
		err = b.outer.Put(uint32(0), b.inner)
	}
	if err != nil {
		panic(fmt.Sprintf("bpf: grace period: %v", err)) // going on would take backends from under readers
	}
}

func (b *barrier) close() error {
	if b.outer == nil {
		return nil
	}
	b.inner.Close()
	return b.outer.Close()
}

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of linux/membarrier.h. The expedited
// form is no grace period.
const membarrierGlobal = 1

func membarrier() error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
