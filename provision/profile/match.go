package profile

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// match checks the match block of a source; all of them have to hold. A profile that was not written for this host is
// refused as a whole, before anything is read from it.
func (l *loader) match(u *unit) {
	var first *hclsyntax.Block
	for _, b := range u.body.Blocks {
		if b.Type != "match" {
			continue
		}
		if first != nil {
			l.duplicateBlock(b, first)
			continue
		}
		first = b
		l.checkLabels(b, "")
		l.checkBody(b.Body, "match", []string{"arch", "kernel"}, nil)
		if len(b.Body.Attributes) == 0 {
			l.add(b.DefRange(), "Empty match", `match without attributes matches every host. Remove it, or add arch = ["amd64"] or kernel = ">= 5.15".`)
		}
		l.matchArch(b.Body.Attributes["arch"])
		l.matchKernel(b.Body.Attributes["kernel"])
	}
}

// mismatch refuses the host. What a profile that is for others asks of it is not
// worth a word.
func (l *loader) mismatch(r hcl.Range, format string, args ...any) {
	l.stop = true
	l.add(r, "Host does not match", format, args...)
}

// fact evaluates an attribute of match; ok is false where there is nothing to
// compare.
func (l *loader) fact(a *hclsyntax.Attribute, ty cty.Type) (cty.Value, bool) {
	if a == nil {
		return cty.NilVal, false
	}
	v, ok := l.eval(a.Expr, anywhere)
	if ok {
		v, ok = l.convert(a.Expr, v, ty, a.Name+" of match", anywhere)
	}
	if !ok {
		return cty.NilVal, false
	}
	if v.ContainsMarked() {
		l.add(a.Expr.Range(), "Sensitive value", "match is shown to people, and this comes from a sensitive value. Write %s out.", a.Name)
		return cty.NilVal, false
	}
	return v, !v.IsNull() && v.IsWhollyKnown()
}

// hostText is host.A.B, or false where the host is unknown.
func (l *loader) hostText(path ...string) (string, bool) {
	v := l.host
	for _, name := range path {
		if v.Type() == cty.DynamicPseudoType {
			return "", false
		}
		if !v.Type().IsObjectType() || !v.Type().HasAttribute(name) {
			panic(fmt.Sprintf("profile: host has no %v", path))
		}
		if v.IsNull() {
			return "", false
		}
		v = v.GetAttr(name)
	}
	if !v.IsKnown() || v.IsNull() {
		return "", false
	}
	return v.AsString(), true
}

func (l *loader) matchArch(a *hclsyntax.Attribute) {
	v, ok := l.fact(a, cty.List(cty.String))
	if !ok {
		return
	}
	var archs []string
	for i, e := range v.AsValueSlice() {
		r := a.Expr.Range()
		if e := l.element(a.Expr, cty.NumberIntVal(int64(i)), anywhere); e != nil {
			r = e.Range()
		}
		if e.IsNull() {
			l.add(r, "Unsuitable value", `An architecture is not null. Write "amd64", "arm64" or another, or leave it out.`)
			return
		}
		name := e.AsString()
		// Facts have Go's names; these are the kernel's (uname -m).
		if goName := map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}[name]; goName != "" {
			l.add(r, "Unknown architecture", "%q is named %q here. Did you mean %q?", name, goName, goName)
			return
		}
		archs = append(archs, name)
	}
	arch, known := l.hostText("arch")
	if !known || slices.Contains(archs, arch) {
		return
	}
	if len(archs) == 0 {
		l.mismatch(a.Expr.Range(), `The list of architectures is empty, so that no host matches; this one is %s. Write: arch = [%q]`, arch, arch)
		return
	}
	l.mismatch(a.Expr.Range(),
		"This profile is for %s, and this host is %s. Use a profile that is written for %s, or add %q to the list.",
		list(archs), arch, arch, arch)
}

// release takes the numbers off the front of what a kernel calls itself; the
// rest ("-18-amd64", "-rc3") would make it a pre-release, which is in no range.
var release = regexp.MustCompile(`^\d+(\.\d+)*`)

func (l *loader) matchKernel(a *hclsyntax.Attribute) {
	v, ok := l.fact(a, cty.String)
	if !ok {
		return
	}
	constraints, err := version.NewConstraint(v.AsString())
	if err != nil {
		l.add(a.Expr.Range(), "Invalid range of versions",
			`%q is not a range of kernel versions. Write ">= 5.15", or several with commas: ">= 5.15, < 7.0".`, v.AsString())
		return
	}
	live, known := l.hostText("kernel", "version")
	if !known {
		return
	}
	kernel, err := version.NewVersion(release.FindString(live))
	if err != nil {
		l.add(a.Expr.Range(), "Kernel's version is not known",
			"This host's kernel calls itself %q, which starts with no version. Remove kernel from match to use the profile all the same.", live)
		return
	}
	if !constraints.Check(kernel) {
		l.mismatch(a.Expr.Range(),
			"This profile is for kernels %s, and this host runs %s. Boot such a kernel, or use a profile that is written for %s.",
			v.AsString(), live, live)
	}
}
