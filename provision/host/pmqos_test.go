package host

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"testing"
)

func TestLatency(t *testing.T) {
	h := newTree(t, map[string]string{"dev/cpu_dma_latency": "\x00\x94\x35\x77\xff"})
	// PM_QOS_CPU_LATENCY_DEFAULT_VALUE, as a little-endian machine has it.
	if us, err := h.EffectiveLatency(); binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && us != 2_000_000_000 || err != nil {
		t.Errorf("%d, %v", us, err)
	}
	f, err := h.HoldLatency(70)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if us, err := h.EffectiveLatency(); us != 70 || err != nil {
		t.Errorf("%d, %v", us, err)
	}
	for _, us := range []int{-1, math.MaxInt32 + 1} {
		if err := SetLatency(f, us); err == nil {
			t.Errorf("%d µs are taken", us)
		}
	}
	none := newTree(t, nil)
	_, err1 := none.EffectiveLatency()
	_, err2 := none.HoldLatency(1)
	if !errors.Is(err1, os.ErrNotExist) || !errors.Is(err2, os.ErrNotExist) {
		t.Errorf("%v, %v", err1, err2)
	}
}

func TestIdleStates(t *testing.T) {
	const dir = "sys/devices/system/cpu/cpu0/cpuidle/"
	h := newTree(t, map[string]string{
		dir + "state10/name": "C6\n", dir + "state10/latency": "133\n",
		dir + "state2/name": "C1E\n", dir + "state2/latency": "10\n",
		dir + "current_driver": "x",
	})
	got, err := h.IdleStates()
	if err != nil || len(got) != 2 || got[0] != (IdleState{"C1E", 10}) || got[1] != (IdleState{"C6", 133}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := newTree(t, nil).IdleStates(); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	bad := newTree(t, map[string]string{dir + "state0/name": "C1\n", dir + "state0/latency": "much\n"})
	if got, err := bad.IdleStates(); err == nil {
		t.Errorf("%v", got)
	}
}
