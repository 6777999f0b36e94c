package lbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

// API is the Kubernetes API: informers on the Services and EndpointSlices that
// concern a proxy. It waits for its kubeconfig to appear, and tries for ever to
// reach the API, with client-go's backoff.
type API struct {
	kubeconfig string
	agent      string
	log        *slog.Logger

	mu   sync.Mutex
	host string // empty until the kubeconfig is there
}

// NewAPI returns the Source that a kubeconfig names. agent is what the API's audit
// log shows.
func NewAPI(kubeconfig, agent string, log *slog.Logger) *API {
	return &API{kubeconfig: kubeconfig, agent: agent, log: log}
}

func (a *API) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.host == "" {
		return a.kubeconfig
	}
	return a.host
}

// Run implements Source.
func (a *API) Run(ctx context.Context, store *Store) error {
	conf, err := a.await(ctx, store)
	if conf == nil {
		return err
	}
	// client-go logs through the context, where this process's logger is.
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(a.log.Handler()))
	conf.Wrap(func(next http.RoundTripper) http.RoundTripper { return &reach{next: next, store: store} })

	services, err := informer(conf, corev1.SchemeGroupVersion, "/api", "services", &corev1.Service{}, store)
	if err != nil {
		return err
	}
	endpoints, err := informer(conf, discoveryv1.SchemeGroupVersion, "/apis", "endpointslices", &discoveryv1.EndpointSlice{}, store)
	if err != nil {
		return err
	}
	handled := []cache.DoneChecker{}
	for _, i := range []struct {
		informer cache.SharedIndexInformer
		set      func(any)
		del      func(types.NamespacedName)
	}{
		{services, func(o any) { store.SetService(o.(*corev1.Service)) }, store.DeleteService},
		{endpoints, func(o any) { store.SetSlice(o.(*discoveryv1.EndpointSlice)) }, store.DeleteSlice},
	} {
		reg, err := i.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    i.set,
			UpdateFunc: func(_, o any) { i.set(o) },
			DeleteFunc: func(o any) {
				// After a cut watch this may be a DeletedFinalStateUnknown: the key
				// is all that is known for certain.
				key, err := cache.DeletionHandlingObjectToName(o)
				if err != nil {
					panic(err) // an object without metadata: ours have it
				}
				i.del(types.NamespacedName{Namespace: key.Namespace, Name: key.Name})
			},
		})
		if err != nil {
			return err
		}
		handled = append(handled, reg.HasSyncedChecker())
	}

	var wg sync.WaitGroup
	wg.Go(func() { services.RunWithContext(ctx) })
	wg.Go(func() { endpoints.RunWithContext(ctx) })
	defer wg.Wait()
	// Synced means that the handlers have seen the whole first list, of both.
	for _, h := range handled {
		select {
		case <-h.Done():
		case <-ctx.Done():
			return nil
		}
	}
	store.SetSynced()
	<-ctx.Done()
	return nil
}

// await returns the client configuration as soon as there is one, or nil when ctx
// is done first.
func (a *API) await(ctx context.Context, store *Store) (*rest.Config, error) {
	w, err := newPathWatch(a.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w (raise fs.inotify.max_user_instances)", a.kubeconfig, err)
	}
	defer w.Close()
	for {
		if err := w.arm(); err != nil {
			return nil, fmt.Errorf("watch %s: %w (raise fs.inotify.max_user_watches)", a.kubeconfig, err)
		}
		conf, err := a.load()
		store.SetFault("kubeconfig", err)
		if err == nil {
			a.mu.Lock()
			a.host = conf.Host
			a.mu.Unlock()
			return conf, nil
		}
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return nil, nil
			case e := <-w.Events:
				again = w.concerns(e)
			case err := <-w.Errors:
				a.log.Warn("watch", "file", a.kubeconfig, "err", err)
				again = true
			}
		}
	}
}

func (a *API) load() (*rest.Config, error) {
	if _, err := os.Stat(a.kubeconfig); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("waiting for %s", a.kubeconfig)
	}
	// Unlike a written file, an empty one is no error to clientcmd, which then
	// takes http://localhost:8080.
	conf, err := clientcmd.BuildConfigFromKubeconfigGetter("", func() (*clientcmdapi.Config, error) {
		return clientcmd.LoadFromFile(a.kubeconfig)
	})
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", a.kubeconfig, err)
	}
	// Certificates that the file names are there a moment later, perhaps.
	if _, err := rest.TransportFor(conf); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", a.kubeconfig, err)
	}
	conf.UserAgent = a.agent
	conf.ContentType = runtime.ContentTypeProtobuf
	conf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return conf, nil
}

// client returns a client of one group of the API. One of two kinds needs neither
// the code nor the memory of a client of all kinds.
func client(conf *rest.Config, gv schema.GroupVersion, path string) (*rest.RESTClient, error) {
	types := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(types), discoveryv1.AddToScheme(types)); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(types, schema.GroupVersion{Version: "v1"})
	conf = rest.CopyConfig(conf)
	conf.APIPath = path
	conf.GroupVersion = &gv
	conf.NegotiatedSerializer = serializer.NewCodecFactory(types).WithoutConversion()
	c, err := rest.RESTClientFor(conf)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", conf.Host, err)
	}
	return c, nil
}

// informer returns an informer of objects in all namespaces, but for those that
// are labelled to be no proxy's or another's.
func informer(conf *rest.Config, gv schema.GroupVersion, path, resource string, kind runtime.Object, store *Store) (cache.SharedIndexInformer, error) {
	c, err := client(conf, gv, path)
	if err != nil {
		return nil, err
	}
	lw := cache.NewFilteredListWatchFromClient(c, resource, metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.LabelSelector = "!" + corev1.IsHeadlessService + ",!" + labelProxyName
	})
	i := cache.NewSharedIndexInformerWithOptions(lw, kind, cache.SharedIndexInformerOptions{ObjectDescription: resource})
	err = errors.Join(
		i.SetTransform(trim),
		i.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
			switch {
			case ctx.Err() != nil, errors.Is(err, io.EOF), apierrors.IsResourceExpired(err), apierrors.IsGone(err):
				// The end, or a watch that has run its time and is made again.
			default:
				store.SetFault(resource, err)
			}
		}),
	)
	return i, err
}

// trim leaves of an object what the model reads. Managed fields and annotations
// alone are half of what a cluster's services weigh.
func trim(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Service:
		return &corev1.Service{
			ObjectMeta: trimMeta(o.ObjectMeta, corev1.IsHeadlessService, labelProxyName),
			Spec: corev1.ServiceSpec{
				Type:       o.Spec.Type,
				ClusterIP:  o.Spec.ClusterIP,
				ClusterIPs: o.Spec.ClusterIPs,
				Ports:      o.Spec.Ports,
			},
		}, nil
	case *discoveryv1.EndpointSlice:
		t := &discoveryv1.EndpointSlice{
			ObjectMeta:  trimMeta(o.ObjectMeta, discoveryv1.LabelServiceName),
			AddressType: o.AddressType,
			Ports:       o.Ports,
			Endpoints:   make([]discoveryv1.Endpoint, len(o.Endpoints)),
		}
		for i, e := range o.Endpoints {
			t.Endpoints[i] = discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions}
		}
		return t, nil
	}
	return o, nil
}

func trimMeta(m metav1.ObjectMeta, labels ...string) metav1.ObjectMeta {
	t := metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
	for _, l := range labels {
		if v, ok := m.Labels[l]; ok {
			if t.Labels == nil {
				t.Labels = map[string]string{}
			}
			t.Labels[l] = v
		}
	}
	return t
}

// reach sees whether the API answers. The informers do not tell when it does
// again, nor that it refuses connections while they watch.
type reach struct {
	next  http.RoundTripper
	store *Store
}

func (r *reach) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	resource := req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:]
	switch {
	case err != nil:
		if req.Context().Err() == nil {
			r.store.SetFault(resource, err)
		}
	case resp.StatusCode < 300:
		r.store.SetFault(resource, nil)
	case resp.StatusCode == http.StatusGone:
		// Too old a resource version: a fresh list follows.
	default:
		r.store.SetFault(resource, fmt.Errorf("the API answers %s", resp.Status))
	}
	return resp, err
}
