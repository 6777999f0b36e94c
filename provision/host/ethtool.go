package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	ethlib "github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// The methods below ask and tell what ethtool(8) does, of the devices of this
// thread's network namespace. Their errors are fs.ErrNotExist for a device that is
// not there, errors.ErrUnsupported for a driver that has no such setting, and
// ErrOffline.

// Channels tells a device's queues (ethtool -l).
func (h *Host) Channels(name string) (ChannelFacts, error) {
	var c ChannelFacts
	err := h.ethtool(name, "channels", func(e *ethtool) (err error) {
		c, err = e.channels(name)
		return err
	})
	return c, err
}

// SetChannels sets the numbers of queues; the maxima of c do not matter. Most
// drivers reset the device.
func (h *Host) SetChannels(name string, c ChannelFacts) error {
	return h.ethtool(name, "channels", func(e *ethtool) error {
		// Read and changed, as the struct has counts that are not ours.
		live := ethlib.Channels{Cmd: ethlib.ETHTOOL_GCHANNELS}
		if err := e.ioctl(name, unsafe.Pointer(&live)); err != nil {
			return err
		}
		live.Cmd = ethlib.ETHTOOL_SCHANNELS
		live.CombinedCount, live.RxCount, live.TxCount = uint32(c.Combined), uint32(c.RX), uint32(c.TX)
		err := e.ioctl(name, unsafe.Pointer(&live))
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%w (the driver takes no such numbers; or queues would go that an RSS table or an XDP program of somebody uses: `ethtool -X %s default` gives the table back to the driver)", err, name)
		}
		return err
	})
}

// Rings tells a device's rings (ethtool -g).
func (h *Host) Rings(name string) (RingFacts, error) {
	var r RingFacts
	err := h.ethtool(name, "rings", func(e *ethtool) (err error) {
		r, err = e.rings(name)
		return err
	})
	return r, err
}

// SetRings sets the entries of the rings; the maxima of r do not matter. Most
// drivers reset the device.
func (h *Host) SetRings(name string, r RingFacts) error {
	return h.ethtool(name, "rings", func(e *ethtool) error {
		live := ethlib.Ring{Cmd: ethlib.ETHTOOL_GRINGPARAM}
		if err := e.ioctl(name, unsafe.Pointer(&live)); err != nil {
			return err
		}
		live.Cmd, live.RxPending, live.TxPending = ethlib.ETHTOOL_SRINGPARAM, uint32(r.RX), uint32(r.TX)
		return e.ioctl(name, unsafe.Pointer(&live))
	})
}

// Coalesce is how a device moderates its interrupts.
type Coalesce = ethlib.Coalesce

// CoalesceFields are the fields of c by ethtool(8)'s names, with "_" for "-": times
// in microseconds, numbers of frames, and adaptive_rx and adaptive_tx, which are 0
// or 1.
func CoalesceFields(c *Coalesce) map[string]*uint32 {
	return map[string]*uint32{
		"adaptive_rx": &c.UseAdaptiveRxCoalesce, "adaptive_tx": &c.UseAdaptiveTxCoalesce,
		"rx_usecs": &c.RxCoalesceUsecs, "rx_frames": &c.RxMaxCoalescedFrames,
		"rx_usecs_irq": &c.RxCoalesceUsecsIrq, "rx_frames_irq": &c.RxMaxCoalescedFramesIrq,
		"tx_usecs": &c.TxCoalesceUsecs, "tx_frames": &c.TxMaxCoalescedFrames,
		"tx_usecs_irq": &c.TxCoalesceUsecsIrq, "tx_frames_irq": &c.TxMaxCoalescedFramesIrq,
		"stats_block_usecs": &c.StatsBlockCoalesceUsecs, "sample_interval": &c.RateSampleInterval,
		"pkt_rate_low": &c.PktRateLow, "pkt_rate_high": &c.PktRateHigh,
		"rx_usecs_low": &c.RxCoalesceUsecsLow, "rx_frames_low": &c.RxMaxCoalescedFramesLow,
		"tx_usecs_low": &c.TxCoalesceUsecsLow, "tx_frames_low": &c.TxMaxCoalescedFramesLow,
		"rx_usecs_high": &c.RxCoalesceUsecsHigh, "rx_frames_high": &c.RxMaxCoalescedFramesHigh,
		"tx_usecs_high": &c.TxCoalesceUsecsHigh, "tx_frames_high": &c.TxMaxCoalescedFramesHigh,
	}
}

// Coalesce tells it (ethtool -c). Fields that the driver does not have are 0.
func (h *Host) Coalesce(name string) (Coalesce, error) {
	c := Coalesce{Cmd: ethlib.ETHTOOL_GCOALESCE}
	err := h.ethtool(name, "coalescing", func(e *ethtool) error { return e.ioctl(name, unsafe.Pointer(&c)) })
	return c, err
}

// SetCoalesce sets all of it: change what Coalesce returned. A field that the
// driver does not have makes it errors.ErrUnsupported.
func (h *Host) SetCoalesce(name string, c Coalesce) error {
	c.Cmd = ethlib.ETHTOOL_SCOALESCE
	return h.ethtool(name, "coalescing", func(e *ethtool) error { return e.ioctl(name, unsafe.Pointer(&c)) })
}

// Feature is the state of one of a device's features (ethtool -k).
type Feature struct {
	On bool
	// Fixed features cannot be changed on this device.
	Fixed bool
}

// Features tells all features that the kernel knows, by the kernel's names.
func (h *Host) Features(name string) (map[string]Feature, error) {
	var features map[string]Feature
	err := h.ethtool(name, "features", func(e *ethtool) error {
		names, err := e.featureNames(name)
		if err != nil {
			return err
		}
		// struct ethtool_gfeatures
		type block struct{ available, requested, active, neverChanged uint32 }
		var get struct {
			cmd, size uint32
			blocks    [maxFeatures / 32]block
		}
		get.cmd, get.size = ethlib.ETHTOOL_GFEATURES, uint32(len(names)+31)/32
		if err := e.ioctl(name, unsafe.Pointer(&get)); err != nil {
			return err
		}
		features = make(map[string]Feature, len(names))
		for i, n := range names {
			b, bit := get.blocks[i/32], uint32(1)<<(i%32)
			if n != "" {
				features[n] = Feature{On: b.active&bit != 0, Fixed: b.available&bit == 0 || b.neverChanged&bit != 0}
			}
		}
		return nil
	})
	return features, err
}

// SetFeature switches one feature. The kernel may ignore it, and may switch others
// that need it: read back.
func (h *Host) SetFeature(name, feature string, on bool) error {
	return h.ethtool(name, "feature "+feature, func(e *ethtool) error {
		names, err := e.featureNames(name)
		if err != nil {
			return err
		}
		for i, n := range names {
			if n != feature {
				continue
			}
			// struct ethtool_sfeatures
			var set struct {
				cmd, size uint32
				blocks    [maxFeatures / 32]struct{ valid, requested uint32 }
			}
			set.cmd, set.size = ethlib.ETHTOOL_SFEATURES, uint32(len(names)+31)/32
			set.blocks[i/32].valid = 1 << (i % 32)
			if on {
				set.blocks[i/32].requested = 1 << (i % 32)
			}
			return e.ioctl(name, unsafe.Pointer(&set))
		}
		return fmt.Errorf("%w: the kernel knows no such feature", errors.ErrUnsupported)
	})
}

// RSS returns the receive side scaling's table (ethtool -x): the queue for each
// value of the hash. It is never empty.
func (h *Host) RSS(name string) ([]uint32, error) {
	var table []uint32
	err := h.ethtool(name, "RSS table", func(e *ethtool) error {
		b := make([]uint32, 2)
		b[0] = ethlib.ETHTOOL_GRXFHINDIR
		if err := e.ioctl(name, unsafe.Pointer(&b[0])); err != nil {
			return err
		}
		size := b[1]
		if size == 0 {
			return unix.EOPNOTSUPP
		}
		b = make([]uint32, 2+size)
		b[0], b[1] = ethlib.ETHTOOL_GRXFHINDIR, size
		if err := e.ioctl(name, unsafe.Pointer(&b[0])); err != nil {
			return err
		}
		table = b[2:]
		return nil
	})
	return table, err
}

// SetRSS sets the table, of the size that RSS returned. An empty table gives it
// back to the driver, which makes its own, now and whenever the channels change.
func (h *Host) SetRSS(name string, table []uint32) error {
	return h.ethtool(name, "RSS table", func(e *ethtool) error {
		b := append([]uint32{ethlib.ETHTOOL_SRXFHINDIR, uint32(len(table))}, table...)
		err := e.ioctl(name, unsafe.Pointer(&b[0]))
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%w (it names a queue that the device does not use, or has another size than the device's)", err)
		}
		return err
	})
}

// ethtool runs f with a socket of this thread's network namespace and says in the
// error what it was about.
func (h *Host) ethtool(name, what string, f func(*ethtool) error) error {
	if !h.Live() {
		return fmt.Errorf("%s of %s: %w", what, name, ErrOffline)
	}
	e, err := openEthtool()
	if err != nil {
		return fmt.Errorf("%s of %s: %w", what, name, err)
	}
	defer e.close()
	err = f(e)
	switch {
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%s of %s: the device: %w", what, name, fs.ErrNotExist)
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("%s of %s: %w (the driver %s has none)", what, name, err, e.driver(name, "of the device"))
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s of %s: %w (run as root)", what, name, err)
	case err != nil:
		return fmt.Errorf("%s of %s: %w", what, name, err)
	}
	return nil
}

// ethtool is a socket for SIOCETHTOOL, of the network namespace that the thread
// had when it was opened. The structs are the library's, but not its calls: those
// hand the kernel, as a number, the address of a struct on a stack that Go may
// move meanwhile, and have room for RSS tables of 256 entries only, however many
// the kernel writes.
type ethtool struct{ fd int }

func openEthtool() (*ethtool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &ethtool{fd}, nil
}

func (e *ethtool) close() { unix.Close(e.fd) }

// ioctl passes on data, a struct of linux/ethtool.h with its command in front.
func (e *ethtool) ioctl(name string, data unsafe.Pointer) error {
	if len(name) >= unix.IFNAMSIZ {
		return unix.ENODEV
	}
	var req struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:], name)
	req.data = data
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), ethlib.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}

// driver is what the device's driver calls itself; kind is rtnetlink's name for
// devices that are software, and the answer for those whose driver says nothing.
func (e *ethtool) driver(name, kind string) string {
	if info, err := unix.IoctlGetEthtoolDrvinfo(e.fd, name); err == nil {
		if d := unix.ByteSliceToString(info.Driver[:]); d != "" {
			return d
		}
	}
	return kind
}

func (e *ethtool) channels(name string) (ChannelFacts, error) {
	c := ethlib.Channels{Cmd: ethlib.ETHTOOL_GCHANNELS}
	if err := e.ioctl(name, unsafe.Pointer(&c)); err != nil {
		return ChannelFacts{}, err
	}
	return ChannelFacts{
		Combined: int(c.CombinedCount), RX: int(c.RxCount), TX: int(c.TxCount),
		MaxCombined: int(c.MaxCombined), MaxRX: int(c.MaxRx), MaxTX: int(c.MaxTx),
	}, nil
}

func (e *ethtool) rings(name string) (RingFacts, error) {
	r := ethlib.Ring{Cmd: ethlib.ETHTOOL_GRINGPARAM}
	if err := e.ioctl(name, unsafe.Pointer(&r)); err != nil {
		return RingFacts{}, err
	}
	return RingFacts{RX: int(r.RxPending), TX: int(r.TxPending), MaxRX: int(r.RxMaxPending), MaxTX: int(r.TxMaxPending)}, nil
}

// maxFeatures is more than any kernel has; Linux 6.18 has about 64.
const maxFeatures = 256

// featureNames are the names by bit; bits without one are empty.
func (e *ethtool) featureNames(name string) ([]string, error) {
	info := struct { // struct ethtool_sset_info
		cmd, _ uint32
		mask   uint64
		count  uint32
		_      uint32
	}{cmd: ethlib.ETHTOOL_GSSET_INFO, mask: 1 << ethlib.ETH_SS_FEATURES}
	if err := e.ioctl(name, unsafe.Pointer(&info)); err != nil {
		return nil, err
	}
	n := info.count
	if info.mask == 0 || n == 0 {
		return nil, unix.EOPNOTSUPP
	}
	if n > maxFeatures {
		return nil, fmt.Errorf("the kernel has %d features, and this version of nodeprov knows of at most %d", n, maxFeatures)
	}
	var get struct { // struct ethtool_gstrings
		cmd, set, len uint32
		data          [maxFeatures][ethlib.ETH_GSTRING_LEN]byte
	}
	get.cmd, get.set, get.len = ethlib.ETHTOOL_GSTRINGS, ethlib.ETH_SS_FEATURES, n
	if err := e.ioctl(name, unsafe.Pointer(&get)); err != nil {
		return nil, err
	}
	names := make([]string, n)
	for i := range names {
		names[i] = unix.ByteSliceToString(get.data[i][:])
	}
	return names, nil
}
