package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hooks are the programs with their places, in the order of attachment: what
// undoes a translation stands before what makes one, so that no reply is ever
// seen with a backend's address.
var hooks = []struct {
	name   string
	attach ebpf.AttachType
}{
	{sockProgGetpeername4, ebpf.AttachCgroupInet4GetPeername},
	{sockProgGetpeername6, ebpf.AttachCgroupInet6GetPeername},
	{sockProgRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
	{sockProgRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
	{sockProgSendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
	{sockProgSendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
	{sockProgConnect4, ebpf.AttachCGroupInet4Connect},
	{sockProgConnect6, ebpf.AttachCGroupInet6Connect},
}

// Hook tells about one program.
type Hook struct {
	Name     string `json:"name"`
	Attached bool   `json:"attached"`
	// Detail is where it is attached, or why it is not.
	Detail string `json:"detail"`
}

// Attach loads the programs and puts them on their hooks. A hook that holds a
// program of an earlier life has it replaced in place: no call is missed. A link
// whose cgroup is gone, or that belongs to another cgroup, is made anew.
func (d *Datapath) Attach() error {
	cg, err := cgroupID(d.cgroup)
	if err != nil {
		return err
	}
	spec, err := loadSock()
	if err != nil {
		return err
	}
	for name, fn := range map[string]asm.BuiltinFunc{
		sockVarHaveSetRetval:      asm.FnSetRetval,
		sockVarHaveSkcToMptcpSock: asm.FnSkcToMptcpSock,
	} {
		err := features.HaveProgramHelper(ebpf.CGroupSockAddr, fn)
		if err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("probe %s: %w", name, err)
		}
		if err := spec.Variables[name].Set(err == nil); err != nil {
			return fmt.Errorf("probe %s: %w", name, err)
		}
	}
	for name, m := range d.maps { // Open has pinned them
		spec.Maps[name].Pinning, spec.Maps[name].MaxEntries = ebpf.PinNone, m.MaxEntries()
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: d.maps})
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	defer coll.Close()

	for _, dir := range []string{d.pin("links"), d.pin("programs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
	}
	for _, h := range hooks {
		if err := d.attach(h.name, h.attach, coll.Programs[h.name], cg); err != nil {
			return fmt.Errorf("hook %s: %w", h.name, err)
		}
	}
	return nil
}

func (d *Datapath) attach(name string, at ebpf.AttachType, prog *ebpf.Program, cg uint64) error {
	if err := replacePin(prog, d.pin("programs"), name); err != nil {
		return err
	}
	path := filepath.Join(d.pin("links"), name)
	old, err := link.LoadPinnedLink(path, nil)
	switch {
	case err == nil:
		defer old.Close()
		if linkCgroup(old) == cg {
			return old.Update(prog)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("pin %s: %w (it is no link of ours: `lbd cleanup` removes it)", path, err)
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: d.cgroup, Attach: at, Program: prog})
	if err != nil {
		return err
	}
	defer l.Close()
	// The old one, dead or of another cgroup, goes when the new one is there.
	return replacePin(l, d.pin("links"), name)
}

// replacePin pins p as dir/name, in one step also where that exists.
func replacePin(p interface{ Pin(string) error }, dir, name string) error {
	tmp := filepath.Join(dir, "new_"+name) // bpffs has no dots in names
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pin: %w", err)
	}
	if err := p.Pin(tmp); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	return nil
}

// Hooks tells what the pins say of every hook. The error is about the pins as a
// whole; a hook that is not attached is no error.
func (d *Datapath) Hooks() ([]Hook, error) {
	var out []Hook
	for _, h := range hooks {
		hook := Hook{Name: h.name}
		l, err := link.LoadPinnedLink(filepath.Join(d.pin("links"), h.name), &ebpf.LoadPinOptions{})
		switch {
		case errors.Is(err, fs.ErrNotExist):
			hook.Detail = "never attached"
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("hook %s: %w", h.name, err)
		case err != nil:
			hook.Detail = err.Error()
		default:
			if cg := linkCgroup(l); cg != 0 {
				hook.Attached, hook.Detail = true, fmt.Sprintf("cgroup %d", cg)
			} else {
				hook.Detail = "its cgroup is gone"
			}
			l.Close()
		}
		out = append(out, hook)
	}
	return out, nil
}

// linkCgroup returns the id of the cgroup that a link is attached to, 0 for none.
func linkCgroup(l link.Link) uint64 {
	info, err := l.Info()
	if err != nil || info.Cgroup() == nil {
		return 0
	}
	return info.Cgroup().CgroupId
}

// cgroupID returns the kernel's id of a cgroup2 directory, which is its inode.
func cgroupID(path string) (uint64, error) {
	var fsys unix.Statfs_t
	if err := unix.Statfs(path, &fsys); err != nil {
		return 0, &fs.PathError{Op: "cgroup", Path: path, Err: err}
	}
	if fsys.Type != unix.CGROUP2_SUPER_MAGIC {
		return 0, fmt.Errorf("cgroup %s: not in a cgroup2 hierarchy (name one with --cgroup)", path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "cgroup", Path: path, Err: err}
	}
	return st.Ino, nil
}
