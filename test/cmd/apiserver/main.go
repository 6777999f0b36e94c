// Command apiserver is a real kube-apiserver for tests: etcd, the API server and
// the EndpointSlice controller in one process. It prints "ready" when it serves
// and ends on SIGTERM.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nodeprov/nodeprov/test/controlplane"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run() error {
	var o controlplane.Options
	flag.StringVar(&o.Dir, "dir", "", "state directory")
	flag.IntVar(&o.Port, "port", 0, "port on 127.0.0.1; 0: any")
	flag.StringVar(&o.Kubeconfig, "kubeconfig", "", "where to write the kubeconfigs (FILE and FILE.proxy)")
	flag.StringVar(&o.ServiceCIDRs, "service-cidrs", "10.43.0.0/16,fd43::/112", "as --service-cluster-ip-range")
	flag.Parse()
	o.Flags = flag.Args()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := controlplane.Start(ctx, o)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- controlplane.RunEndpointSlice(ctx, s.Config) }()
	fmt.Println("ready")
	<-ctx.Done()
	if err := <-done; err != nil {
		return err
	}
	return s.Stop()
}
