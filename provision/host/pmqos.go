package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// LatencyDevice takes requests for a limit of the CPUs' wake-up latency: each
// open descriptor is one, and the kernel honours the smallest. See "PM Quality Of
// Service Interface" in the kernel's documentation.
const LatencyDevice = "/dev/cpu_dma_latency"

// HoldLatency asks that no CPU takes longer than us microseconds to wake up. The
// request holds until the last descriptor of the file is closed;
// SetLatency changes it.
func (h *Host) HoldLatency(us int) (*os.File, error) {
	f, err := h.open(LatencyDevice, os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("wake-up latency: %w", err)
	}
	if err := SetLatency(f, us); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// SetLatency changes the request of a descriptor that HoldLatency returned.
func SetLatency(f *os.File, us int) error {
	if us < 0 || us > math.MaxInt32 {
		return fmt.Errorf("wake-up latency of %d µs: it is out of range (0 to %d)", us, math.MaxInt32)
	}
	// Four bytes are a binary number; the kernel takes any other length for
	// hexadecimal digits.
	if _, err := f.Write(binary.NativeEndian.AppendUint32(nil, uint32(us))); err != nil {
		return fmt.Errorf("wake-up latency of %d µs: %w", us, err)
	}
	return nil
}

// EffectiveLatency returns the limit in microseconds that all requests together
// make; 2000000000 where there is none.
func (h *Host) EffectiveLatency() (int, error) {
	f, err := h.open(LatencyDevice, os.O_RDONLY)
	if err != nil {
		return 0, fmt.Errorf("wake-up latency: %w", err)
	}
	defer f.Close()
	var b [4]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return 0, fmt.Errorf("wake-up latency: %s: %w", LatencyDevice, err)
	}
	return int(int32(binary.NativeEndian.Uint32(b[:]))), nil
}
