// Package probe is a small network client and server for tests and for the
// sandbox of `make run`. It uses system calls directly, so that a test decides
// which kind of socket meets which hook.
package probe

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const usage = `usage: probe COMMAND

  serve ADDR TEXT [ADDR TEXT]...   answer TEXT on TCP and UDP until SIGTERM; prints "ready"
  tcp [flags] ADDR                 connect, print the answer
  udp [flags] ADDR [ADDR]...       send to each in turn, print each answer
  load [flags] ADDR                connect again and again until SIGTERM or --for has
                                   passed, print "attempts=N failures=N" (exit 1 with failures)
  socket [flags] tcp|udp           pass a new IPv4 socket on file descriptor 3

flags: --timeout 2s --peer (print where the answer came from, as the kernel says)
       --mapped (IPv6 socket, IPv4-mapped address) --mptcp --unconnected (udp) --for 10s (load)
Exit 1 with the errno's name on standard error when it does not work.
`

type options struct {
	timeout, duration                time.Duration
	peer, mapped, mptcp, unconnected bool
}

// Run is the command; it returns the exit status.
func Run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 64
	}
	var o options
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	fs.DurationVar(&o.timeout, "timeout", 2*time.Second, "")
	fs.DurationVar(&o.duration, "for", 0, "")
	fs.BoolVar(&o.peer, "peer", false, "")
	fs.BoolVar(&o.mapped, "mapped", false, "")
	fs.BoolVar(&o.mptcp, "mptcp", false, "")
	fs.BoolVar(&o.unconnected, "unconnected", false, "")
	if err := fs.Parse(args[1:]); err != nil {
		return 64
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var err error
	switch args[0] {
	case "serve":
		err = serve(ctx, fs.Args(), stdout)
	case "tcp":
		err = each(fs.Args(), func(a netip.AddrPort) error { return o.tcp(a, stdout) })
	case "udp":
		err = o.udp(fs.Args(), stdout)
	case "load":
		err = each(fs.Args(), func(a netip.AddrPort) error { return o.load(ctx, a, stdout) })
	case "socket":
		err = o.pass(fs.Arg(0))
	default:
		fmt.Fprint(stderr, usage)
		return 64
	}
	if err != nil {
		fmt.Fprintf(stderr, "probe %s: %v\n", strings.Join(args, " "), err)
		return 1
	}
	return 0
}

func each(addrs []string, do func(netip.AddrPort) error) error {
	if len(addrs) == 0 {
		return errors.New("no address")
	}
	for _, a := range addrs {
		ap, err := netip.ParseAddrPort(a)
		if err != nil {
			return err
		}
		if err := do(ap); err != nil {
			return err
		}
	}
	return nil
}

func serve(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 || len(args)%2 != 0 {
		return errors.New("serve needs pairs of ADDR and TEXT")
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := 0; i < len(args); i += 2 {
		text := []byte(args[i+1] + "\n")
		l, err := net.Listen("tcp", args[i])
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", args[i])
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { l.Close(); p.Close() })
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					c.Write(text)
					// The client closes first, so that the server collects no TIME_WAIT.
					c.SetReadDeadline(time.Now().Add(5 * time.Second))
					io.Copy(io.Discard, c)
					c.Close()
				})
			}
		})
		wg.Go(func() {
			buf := make([]byte, 1500)
			for {
				_, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				p.WriteTo(text, from)
			}
		})
	}
	fmt.Fprintln(stdout, "ready")
	<-ctx.Done()
	return nil
}

// socket makes a socket of the kind that o asks for, and the address in its form.
func (o options) socket(typ int, a netip.AddrPort) (int, unix.Sockaddr, error) {
	domain, proto := unix.AF_INET, 0
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(a.Port())}
	if a.Addr().Is4() && !o.mapped {
		sa.(*unix.SockaddrInet4).Addr = a.Addr().As4()
	} else {
		domain = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	if o.mptcp {
		proto = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, nil, name("socket", err)
	}
	tv := unix.NsecToTimeval(o.timeout.Nanoseconds())
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &tv); err != nil {
			unix.Close(fd)
			return -1, nil, name("setsockopt", err)
		}
	}
	return fd, sa, nil
}

// The runtime's own signals interrupt blocking calls.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// connect goes on waiting where a signal interrupted it.
func connect(fd int, sa unix.Sockaddr) error {
	err := retry(func() error { return unix.Connect(fd, sa) })
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

func (o options) tcp(a netip.AddrPort, stdout io.Writer) error {
	fd, sa, err := o.socket(unix.SOCK_STREAM, a)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := connect(fd, sa); err != nil {
		return name("connect", err)
	}
	buf := make([]byte, 1500)
	var n int
	err = retry(func() (err error) { n, err = unix.Read(fd, buf); return err })
	if err != nil {
		return name("read", err)
	}
	if n == 0 {
		return errors.New("read: EOF")
	}
	return o.print(stdout, buf[:n], func() (unix.Sockaddr, error) { return unix.Getpeername(fd) })
}

func (o options) udp(addrs []string, stdout io.Writer) error {
	fd := -1
	defer func() { unix.Close(fd) }()
	return each(addrs, func(a netip.AddrPort) error {
		nfd, sa, err := o.socket(unix.SOCK_DGRAM, a)
		if err != nil {
			return err
		}
		if fd < 0 {
			fd = nfd
		} else { // all from one socket
			unix.Close(nfd)
		}
		if o.unconnected {
			if err := unix.Sendto(fd, []byte("?"), 0, sa); err != nil {
				return name("sendto", err)
			}
		} else {
			if err := connect(fd, sa); err != nil {
				return name("connect", err)
			}
			if _, err := unix.Write(fd, []byte("?")); err != nil {
				return name("write", err)
			}
		}
		buf := make([]byte, 1500)
		var n int
		var from unix.Sockaddr
		err = retry(func() (err error) { n, from, err = unix.Recvfrom(fd, buf, 0); return err })
		if err != nil {
			return name("recvfrom", err)
		}
		return o.print(stdout, buf[:n], func() (unix.Sockaddr, error) { return from, nil })
	})
}

// pass makes a socket and hands it over. A socket belongs to the cgroup and the
// network namespace of the process that made it, whoever uses it.
func (o options) pass(network string) error {
	typ := unix.SOCK_STREAM
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	fd, _, err := o.socket(typ, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return err
	}
	return unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0)
}

func (o options) print(w io.Writer, answer []byte, peer func() (unix.Sockaddr, error)) error {
	text := strings.TrimSpace(string(answer))
	if o.peer {
		sa, err := peer()
		if err != nil {
			return name("getpeername", err)
		}
		text += " from " + addrPort(sa).String()
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func (o options) load(ctx context.Context, a netip.AddrPort, stdout io.Writer) error {
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	attempts, failures := 0, 0
	var first error
	for ctx.Err() == nil {
		attempts++
		if err := o.tcp(a, io.Discard); err != nil {
			failures++
			if first == nil {
				first = err
			}
		}
	}
	fmt.Fprintf(stdout, "attempts=%d failures=%d\n", attempts, failures)
	if first != nil {
		return fmt.Errorf("%d of %d connections failed, the first one: %w", failures, attempts, first)
	}
	return nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// name says which call failed, with the errno's name.
func name(call string, err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		if errno == unix.EAGAIN || errno == unix.EINPROGRESS {
			return fmt.Errorf("%s: timeout", call)
		}
		return fmt.Errorf("%s: %s", call, unix.ErrnoName(errno))
	}
	return fmt.Errorf("%s: %w", call, err)
}
