package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// ErrLocked is returned while another process writes to the same pins.
var ErrLocked = errors.New("another lbd uses these pins (stop it first: systemctl stop lbd)")

// Options are where a Datapath lives.
type Options struct {
	// BPFFS is the mount point of a bpffs; the pins go to BPFFS/lbd.
	BPFFS string
	// Cgroup is the cgroup2 directory whose processes the hooks see. Only
	// Attach needs it.
	Cgroup string
}

// Datapath is the table of services in the kernel and the programs that use it.
// It is safe for concurrent use.
type Datapath struct {
	dir    string // of the pins
	cgroup string
	lock   *os.File // nil: read-only

	maps map[string]*ebpf.Map // by name

	// The writer's side; see apply.go.
	mu      sync.Mutex
	table   table
	garbage []garbage
	reaping sync.WaitGroup
	barrier *barrier
}

// The names of the maps that are pinned under their own names.
var (
	tableMaps  = []string{sockMapFrontendsV1, sockMapServicesV1, sockMapBackendsV1, sockMapNamesV1}
	pinnedMaps = append(slices.Clone(tableMaps), sockMapCountersV1, sockMapPeerV1, sockMapPeersV1)
)

// Open creates the pinned maps, or opens those of an earlier life with all they
// hold, and makes this process their only writer. Programs that are attached
// already go on as they are.
//
// Errors: ErrLocked; a BPFFS that is no bpffs; a map at one of our pins that is
// not ours; no permission (CAP_BPF, CAP_NET_ADMIN).
func Open(o Options) (_ *Datapath, err error) {
	if err := checkBPFFS(o.BPFFS); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("memory lock limit: %w (root, or CAP_SYS_RESOURCE, is needed)", err)
	}
	d := &Datapath{dir: filepath.Join(o.BPFFS, "lbd"), cgroup: o.Cgroup, maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	if d.lock, err = lock(d.dir); err != nil {
		return nil, err
	}
	spec, err := loadSock()
	if err != nil {
		return nil, err
	}
	for _, name := range pinnedMaps {
		// A pinned map keeps the size that it has.
		if m, err := ebpf.LoadPinnedMap(d.pin(name), &ebpf.LoadPinOptions{ReadOnly: true}); err == nil {
			spec.Maps[name].MaxEntries = m.MaxEntries()
			m.Close()
		}
		m, err := ebpf.NewMapWithOptions(spec.Maps[name], ebpf.MapOptions{PinPath: d.dir})
		if errors.Is(err, ebpf.ErrMapIncompatible) {
			return nil, fmt.Errorf("pin %s: %w (it was not made by this version of lbd; `lbd cleanup` removes it)", d.pin(name), err)
		}
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		d.maps[name] = m
	}
	if d.barrier, err = newBarrier(); err != nil {
		return nil, err
	}
	if err := d.restore(); err != nil {
		return nil, fmt.Errorf("pins in %s: %w", d.dir, err)
	}
	return d, nil
}

// OpenReadOnly opens the pins of whatever process made them, alive or dead. Only
// the methods that read may be called. It returns an error that is
// fs.ErrNotExist where there are none.
func OpenReadOnly(bpffs string) (_ *Datapath, err error) {
	d := &Datapath{dir: filepath.Join(bpffs, "lbd"), maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	for _, name := range append(slices.Clone(tableMaps), sockMapCountersV1) {
		m, err := ebpf.LoadPinnedMap(d.pin(name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil, fmt.Errorf("pin %s: %w", d.pin(name), err)
		}
		d.maps[name] = m
	}
	return d, nil
}

// Close finishes what Apply left to be collected, and releases the lock and all
// descriptors. Nothing is detached.
func (d *Datapath) Close() error {
	d.reaping.Wait()
	var errs []error
	for _, m := range d.maps {
		errs = append(errs, m.Close())
	}
	if d.barrier != nil {
		errs = append(errs, d.barrier.close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// MapUsage is how full a map is.
type MapUsage struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"`
	Max     int    `json:"max"`
}

// Usage returns the pressure on the maps that hold the table of services.
func (d *Datapath) Usage() ([]MapUsage, error) {
	v, err := d.view()
	if err != nil {
		return nil, err
	}
	entries := map[string]int{
		sockMapFrontendsV1: len(v.frontends),
		sockMapServicesV1:  len(v.names),
		sockMapBackendsV1:  len(v.backends),
		sockMapNamesV1:     len(v.names),
	}
	var us []MapUsage
	for _, name := range tableMaps {
		us = append(us, MapUsage{Name: name, Entries: entries[name], Max: int(d.maps[name].MaxEntries())})
	}
	return us, nil
}

// Counters returns what the programs count, by name, summed over all CPUs since
// the maps were made:
//
//	refused          connections to a service without backends
//	missing_backend  slots that should have existed: a defect of lbd
//	no_storage       sockets that could not remember their frontend
func (d *Datapath) Counters() (map[string]uint64, error) {
	out := map[string]uint64{}
	for i, name := range []string{"refused", "missing_backend", "no_storage"} {
		var perCPU []uint64
		if err := d.maps[sockMapCountersV1].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("counter %s: %w", name, err)
		}
		for _, n := range perCPU {
			out[name] += n
		}
	}
	return out, nil
}

func (d *Datapath) pin(name string) string { return filepath.Join(d.dir, name) }

// checkBPFFS returns an error with the remedy where no pin could be made.
func checkBPFFS(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return &fs.PathError{Op: "bpffs", Path: path, Err: err}
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("bpffs %s: no bpffs is mounted there (mount -t bpf bpf %s)", path, path)
	}
	return nil
}

// lock takes the writer's lock, which the kernel drops with the process.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("pins in %s: %w", dir, err)
	}
	return f, nil
}

// FindCgroup returns where this machine's cgroup2 hierarchy is mounted.
func FindCgroup() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// 31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw
		mount, fstype, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && strings.HasPrefix(fstype, "cgroup2 ") && fields[3] == "/" {
			return unescape(fields[4]), nil
		}
	}
	return "", errors.New("cgroup2: not mounted (boot with systemd.unified_cgroup_hierarchy=1, or mount it and name it with --cgroup)")
}

// unescape undoes the octal escapes of mountinfo, proc_pid_mountinfo(5).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
