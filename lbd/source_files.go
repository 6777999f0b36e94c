package lbd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"
)

// maxManifest is the largest file that is read: more is no manifest.
const maxManifest = 64 << 20

// Files is a directory of manifests: *.yaml, *.yml and *.json files, each with
// any number of documents, of v1 Services and Lists and discovery.k8s.io/v1
// EndpointSlices. Names that begin with a dot are passed over. A namespace that
// is left out is "default".
//
// The directory is watched. Write a file beside it and rename it into place: what
// is half written may be read. A file that cannot be read or parsed keeps what it
// last gave, and is the source's fault until it is mended; one that never gave
// anything keeps the source from being synced, since nobody knows what it stands
// for. So does a directory that is not there.
type Files struct {
	dir string
	log *slog.Logger
}

// NewFiles returns the Source of a directory.
func NewFiles(dir string, log *slog.Logger) *Files {
	return &Files{dir: filepath.Clean(dir), log: log}
}

func (f *Files) String() string { return f.dir }

// Run implements Source.
func (f *Files) Run(ctx context.Context, store *Store) error {
	w, err := newPathWatch(f.dir)
	if err != nil {
		return fmt.Errorf("watch %s: %w (raise fs.inotify.max_user_instances)", f.dir, err)
	}
	defer w.Close()
	state := manifests{files: map[string]*manifest{}, objects: map[objectKey]object{}}
	for {
		if err := w.arm(); err != nil {
			return fmt.Errorf("watch %s: %w (raise fs.inotify.max_user_watches)", f.dir, err)
		}
		state.read(f.dir)
		state.deliver(store)
		if !f.wait(ctx, w) {
			return nil
		}
	}
}

// wait returns after an event and the quiet that follows it, or false when ctx is
// done. A copy or an editor makes several events: reading once is enough, and
// later is likelier to find the file whole.
func (f *Files) wait(ctx context.Context, w *pathWatch) bool {
	var quiet <-chan time.Time
	var most <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-quiet:
			return true
		case <-most:
			return true
		case e := <-w.Events:
			if !w.concerns(e) {
				continue
			}
		case err := <-w.Errors:
			// Events may be lost (a full queue): the directory is read anew.
			f.log.Warn("watch", "dir", f.dir, "err", err)
		}
		quiet = time.After(2 * time.Millisecond)
		if most == nil {
			most = time.After(10 * time.Millisecond)
		}
	}
}

// manifests is what a directory gave.
type manifests struct {
	files   map[string]*manifest
	dirErr  error
	objects map[objectKey]object // as the store has them
	faults  map[string]error     // as the store has them
}

type manifest struct {
	text    []byte
	objects []object
	good    bool // objects are those of some text
	err     error
}

// object is a Service or a slice, and where it was found.
type object struct {
	service *corev1.Service
	slice   *discoveryv1.EndpointSlice
	line    int
}

type objectKey struct {
	kind string
	name types.NamespacedName
}

func (k objectKey) String() string { return k.kind + " " + k.name.String() }

func (o object) key() objectKey {
	if o.service != nil {
		return objectKey{"Service", types.NamespacedName{Namespace: o.service.Namespace, Name: o.service.Name}}
	}
	return objectKey{"EndpointSlice", types.NamespacedName{Namespace: o.slice.Namespace, Name: o.slice.Name}}
}

// read brings files up to date with the directory.
func (m *manifests) read(dir string) {
	entries, err := os.ReadDir(dir)
	if m.dirErr = err; err != nil {
		// It tells nothing about its files: they keep what they gave.
		if errors.Is(err, fs.ErrNotExist) {
			m.dirErr = fmt.Errorf("%s: no such directory (make it, or name another with --manifests)", dir)
		}
		return
	}
	found := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".yaml", ".yml", ".json":
		default:
			continue
		}
		if strings.HasPrefix(name, ".") {
			continue
		}
		text, err := readManifest(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		found[name] = true
		f := m.files[name]
		if f == nil {
			f = &manifest{}
			m.files[name] = f
		}
		if err != nil {
			f.text, f.err = nil, err
			continue
		}
		if f.text != nil && bytes.Equal(f.text, text) {
			continue
		}
		f.text = text
		objects, err := parseManifest(filepath.Join(dir, name), text)
		if f.err = err; err == nil {
			f.objects, f.good = objects, true
		}
	}
	for name := range m.files {
		if !found[name] {
			delete(m.files, name)
		}
	}
}

func readManifest(path string) ([]byte, error) {
	// Opening a pipe waits for its writer otherwise.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("%s: larger than %d MiB", path, maxManifest>>20)
	}
	return text, err
}

// deliver brings the store up to date with files.
func (m *manifests) deliver(store *Store) {
	faults := map[string]error{}
	if m.dirErr != nil {
		faults["directory"] = m.dirErr
	}
	complete := m.dirErr == nil
	wanted := map[objectKey]object{}
	from := map[objectKey]string{}
	names := make([]string, 0, len(m.files))
	for name := range m.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f := m.files[name]
		if f.err != nil {
			faults[name] = f.err
			complete = complete && f.good
		}
		for _, o := range f.objects {
			k := o.key()
			if first, ok := from[k]; ok {
				faults[name] = errors.Join(faults[name], fmt.Errorf("%s:%d: %s is in %s already (remove one of them)", name, o.line, k, first))
				continue
			}
			from[k] = name
			wanted[k] = o
		}
	}
	for k, o := range wanted {
		if old, ok := m.objects[k]; ok && old.service == o.service && old.slice == o.slice {
			continue
		}
		if o.service != nil {
			store.SetService(o.service)
		} else {
			store.SetSlice(o.slice)
		}
	}
	for k := range m.objects {
		if _, ok := wanted[k]; ok {
			continue
		}
		if k.kind == "Service" {
			store.DeleteService(k.name)
		} else {
			store.DeleteSlice(k.name)
		}
	}
	m.objects = wanted
	for part := range m.faults {
		if faults[part] == nil {
			store.SetFault(part, nil)
		}
	}
	for part, err := range faults {
		store.SetFault(part, err)
	}
	m.faults = faults
	if complete {
		store.SetSynced()
	}
}

// parseManifest returns the objects in a text, or all that is wrong with it, each
// mistake as "file:line: …".
func parseManifest(filename string, text []byte) ([]object, error) {
	if filepath.Ext(filename) == ".json" {
		// YAML contains JSON, but for tabs; no JSON string holds one as it is.
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" "))
	}
	p := parser{
		filename: filename,
		lines:    bytes.Count(text, []byte("\n")),
		seen:     map[objectKey]bool{},
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		p.lines++
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := decode(dec, &doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.syntax(err)
			break // the rest cannot be told apart
		}
		p.document(&doc)
	}
	if len(p.errs) == 0 && len(p.objects) == 0 && !p.list {
		// Most likely it is being written. Taking it at its word would end what
		// it served.
		p.fail(1, "no object (remove the file to end what it served)")
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.objects, nil
}

// decode turns a panic of the library, which has had some, into an error.
func decode(dec *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return dec.Decode(doc)
}

type parser struct {
	filename string
	lines    int
	objects  []object
	seen     map[objectKey]bool
	list     bool // an empty List is an object too
	errs     []error
}

func (p *parser) fail(line int, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %w", p.filename, line, fmt.Errorf(format, args...)))
}

func (p *parser) syntax(err error) {
	var several *yaml.TypeError
	if errors.As(err, &several) {
		for _, text := range several.Errors {
			p.syntax(errors.New(text))
		}
		return
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
		if strings.HasPrefix(text, "did not find expected") {
			line++ // the library counts these from 0
		}
		line = min(line, max(p.lines, 1)) // and takes the end of the text for a line
	}
	p.fail(line, "%s", text)
}

func (p *parser) document(doc *yaml.Node) {
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		doc = doc.Content[0]
	}
	if doc.Kind == 0 || doc.Kind == yaml.ScalarNode && doc.Tag == "!!null" {
		return // nothing between two lines of dashes
	}
	p.object(doc)
}

func (p *parser) object(node *yaml.Node) {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		p.fail(node.Line, "not an object (apiVersion, kind, …)")
		return
	}
	var meta metav1.TypeMeta
	if n := child(node, "apiVersion"); n != nil {
		meta.APIVersion = n.Value
	}
	if n := child(node, "kind"); n != nil {
		meta.Kind = n.Value
	}
	switch meta {
	case metav1.TypeMeta{APIVersion: "v1", Kind: "List"}:
		p.list = true
		items := child(node, "items")
		if items == nil || items.Kind != yaml.SequenceNode {
			p.fail(node.Line, "List: items is not a list")
			return
		}
		for _, n := range items.Content {
			// An alias may lead back up into the list that holds it.
			if n.Kind == yaml.AliasNode {
				p.fail(n.Line, "List: an item is an alias (write it out)")
				continue
			}
			p.object(n)
		}
	case metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}:
		svc := &corev1.Service{}
		if p.decode(node, meta.Kind, svc) && p.named(node, meta.Kind, &svc.ObjectMeta, validation.IsDNS1123Label) {
			p.add(object{service: svc, line: node.Line})
		}
	case metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}:
		slice := &discoveryv1.EndpointSlice{}
		if !p.decode(node, meta.Kind, slice) || !p.named(node, meta.Kind, &slice.ObjectMeta, validation.IsDNS1123Subdomain) {
			return
		}
		if slice.Labels[discoveryv1.LabelServiceName] == "" {
			p.fail(line(node, "metadata.labels"), "EndpointSlice %s/%s: it belongs to no service (label it %s)", slice.Namespace, slice.Name, discoveryv1.LabelServiceName)
			return
		}
		p.add(object{slice: slice, line: node.Line})
	default:
		p.fail(node.Line, "apiVersion %q, kind %q: not taken here (v1 Service, v1 List and discovery.k8s.io/v1 EndpointSlice are)", meta.APIVersion, meta.Kind)
	}
}

func (p *parser) add(o object) {
	k := o.key()
	if p.seen[k] {
		p.fail(o.line, "%s: it is in this file twice", k)
		return
	}
	p.seen[k] = true
	p.objects = append(p.objects, o)
}

// decode reads a node into a Kubernetes object by the API's own rules: names of
// fields are case-sensitive, and unknown ones are mistakes.
func (p *parser) decode(node *yaml.Node, kind string, into any) bool {
	var tree any
	if err := node.Decode(&tree); err != nil {
		p.syntax(err)
		return false
	}
	text, err := json.Marshal(tree)
	if err != nil {
		p.fail(node.Line, "%s: %w", kind, err)
		return false
	}
	strict, err := kjson.UnmarshalStrict(text, into)
	if err != nil {
		var typed *json.UnmarshalTypeError
		at := ""
		if errors.As(err, &typed) {
			at = typed.Field
			err = fmt.Errorf("%s: a %s stands where a %s is wanted", typed.Field, typed.Value, typed.Type)
		}
		p.fail(line(node, at), "%s: %w", kind, err)
		return false
	}
	for _, err := range strict {
		at := ""
		if m := regexp.MustCompile(`field "(.*)"$`).FindStringSubmatch(err.Error()); m != nil {
			at = m[1]
		}
		p.fail(line(node, at), "%s: %w", kind, err)
	}
	return len(strict) == 0
}

func (p *parser) named(node *yaml.Node, kind string, meta *metav1.ObjectMeta, check func(string) []string) bool {
	if meta.Namespace == "" {
		meta.Namespace = metav1.NamespaceDefault
	}
	if meta.Name == "" {
		p.fail(line(node, "metadata"), "%s: it has no metadata.name", kind)
		return false
	}
	ok := true
	if errs := check(meta.Name); len(errs) > 0 {
		p.fail(line(node, "metadata.name"), "%s %q: %s", kind, meta.Name, strings.Join(errs, "; "))
		ok = false
	}
	if errs := validation.IsDNS1123Label(meta.Namespace); len(errs) > 0 {
		p.fail(line(node, "metadata.namespace"), "namespace %q: %s", meta.Namespace, strings.Join(errs, "; "))
		ok = false
	}
	return ok
}

// line returns where a path such as spec.ports[1].port stands; as much of the path
// as can be followed. An index that is left out is followed where there is no
// choice.
func line(node *yaml.Node, path string) int {
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next := node
		if next.Kind == yaml.SequenceNode {
			if i, err := strconv.Atoi(part); err == nil {
				if i < 0 || i >= len(next.Content) {
					break
				}
				node = next.Content[i]
				continue
			}
			if len(next.Content) != 1 {
				break
			}
			next = next.Content[0]
		}
		if next = child(next, part); next == nil {
			break
		}
		node = next
	}
	return node.Line
}

func child(node *yaml.Node, key string) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
