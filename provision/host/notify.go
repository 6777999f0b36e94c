package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Supervisor is the service manager that started this process, as sd_notify(3)
// has it: it is told the state, feeds on the watchdog, and keeps descriptors over
// restarts of the service. A nil Supervisor is one that does not listen.
type Supervisor struct {
	conn     *net.UnixConn
	watchdog time.Duration
	stored   map[string]*os.File
}

// stored descriptors begin after the standard ones (SD_LISTEN_FDS_START).
const firstStored = 3

// NewSupervisor reads what the service manager left in the environment, which is
// given as "NAME=value". Without NOTIFY_SOCKET the result is nil. It takes the
// descriptors that were kept, so call it once.
func NewSupervisor(environ []string) (*Supervisor, error) {
	env := make(map[string]string)
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	addr := env["NOTIFY_SOCKET"]
	if addr == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("service manager: NOTIFY_SOCKET: %w", err)
	}
	s := &Supervisor{conn: conn, stored: make(map[string]*os.File)}
	self := strconv.Itoa(os.Getpid())
	// Without WATCHDOG_PID it is for whoever has the variable (sd_watchdog_enabled(3)).
	if pid, ok := env["WATCHDOG_PID"]; !ok || pid == self {
		if us, err := strconv.ParseInt(env["WATCHDOG_USEC"], 10, 64); err == nil && us > 0 {
			s.watchdog = time.Duration(us) * time.Microsecond
		}
	}
	if env["LISTEN_PID"] == self {
		n, err := strconv.Atoi(env["LISTEN_FDS"])
		if err != nil || n < 0 {
			return nil, errors.Join(fmt.Errorf("service manager: LISTEN_FDS=%q", env["LISTEN_FDS"]), conn.Close())
		}
		names := strings.Split(env["LISTEN_FDNAMES"], ":")
		for i := range n {
			unix.CloseOnExec(firstStored + i)
			name := ""
			if i < len(names) {
				name = names[i]
			}
			f := os.NewFile(uintptr(firstStored+i), name)
			if old := s.stored[name]; old != nil {
				_ = old.Close() // one of each name is all that we store
			}
			s.stored[name] = f
		}
	}
	return s, nil
}

// Watchdog is how often Send("WATCHDOG=1") is due at least; 0 for never.
func (s *Supervisor) Watchdog() time.Duration {
	if s == nil {
		return 0
	}
	return s.watchdog
}

// Send tells assignments of sd_notify(3): "READY=1", "STATUS=…".
func (s *Supervisor) Send(assignments ...string) error {
	if s == nil {
		return nil
	}
	if _, err := s.conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}

// Store gives the manager a copy of f to keep, under a name, until the service
// is stopped. After a restart Take returns it. The unit needs
// FileDescriptorStoreMax=.
func (s *Supervisor) Store(name string, f *os.File) error {
	if s == nil {
		return nil
	}
	from, err := f.SyscallConn()
	to, err2 := s.conn.SyscallConn()
	if err = errors.Join(err, err2); err == nil {
		var serr error
		err = from.Control(func(fd uintptr) {
			// Not WriteMsgUnix, which refuses datagram sockets that are connected.
			serr = to.Write(func(sock uintptr) bool {
				err2 = unix.Sendmsg(int(sock), []byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(int(fd)), nil, unix.MSG_NOSIGNAL)
				return !errors.Is(err2, unix.EAGAIN)
			})
		})
		err = errors.Join(err, serr, err2)
	}
	if err != nil {
		return fmt.Errorf("service manager: keep %s: %w", name, err)
	}
	return nil
}

// Take returns the descriptor that was kept under the name, nil where there is
// none. It is the caller's now; the manager still keeps its copy.
func (s *Supervisor) Take(name string) *os.File {
	if s == nil {
		return nil
	}
	f := s.stored[name]
	delete(s.stored, name)
	return f
}

// Forget makes the manager close what it keeps under the name.
func (s *Supervisor) Forget(name string) error {
	return s.Send("FDSTOREREMOVE=1", "FDNAME="+name)
}
