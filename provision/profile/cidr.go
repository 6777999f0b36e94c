package profile

import (
	"math/big"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

var prefixParam = function.Parameter{Name: "prefix", Type: cty.String}

// parsePrefix reads a network; bits of its host part are dropped.
func parsePrefix(v cty.Value) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil {
		return p, function.NewArgErrorf(0, `%q is not a network; write one like "10.42.0.0/16"`, v.AsString())
	}
	return p.Masked(), nil
}

func bigArg(i int, v cty.Value) (*big.Int, error) {
	f := v.AsBigFloat()
	// The exponent is looked at first: a number may have millions of digits.
	if !f.IsInt() || f.MantExp(nil) > 128 {
		return nil, function.NewArgErrorf(i, "it is a whole number of up to 128 bits")
	}
	n, _ := f.Int(nil)
	return n, nil
}

// offset is the address n after that of p, which starts a network.
func offset(p netip.Prefix, n *big.Int) netip.Addr {
	sum := new(big.Int).Add(new(big.Int).SetBytes(p.Addr().AsSlice()), n)
	addr, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, p.Addr().BitLen()/8)))
	return addr
}

func cidrHostFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{prefixParam, {Name: "hostnum", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, err := parsePrefix(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			n, err := bigArg(1, args[1])
			if err != nil {
				return cty.NilVal, err
			}
			size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
			at := new(big.Int).Set(n)
			if at.Sign() < 0 {
				at.Add(at, size)
			}
			if at.Sign() < 0 || at.Cmp(size) >= 0 {
				return cty.NilVal, function.NewArgErrorf(1, "%s has %v addresses, and so none with the number %v", p, size, n)
			}
			return cty.StringVal(offset(p, at).String()), nil
		},
	})
}

func cidrNetmaskFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{prefixParam},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, err := parsePrefix(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			if !p.Addr().Is4() {
				return cty.NilVal, function.NewArgErrorf(0, "IPv6 has no netmasks; use the prefix itself")
			}
			mask, err := netip.MustParseAddr("255.255.255.255").Prefix(p.Bits())
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(mask.Addr().String()), nil
		},
	})
}

func cidrSubnetFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{prefixParam, {Name: "newbits", Type: cty.Number}, {Name: "netnum", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, err := parsePrefix(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			bits, err := count(args[1])
			if err != nil {
				return cty.NilVal, err
			}
			free := p.Addr().BitLen() - p.Bits()
			if bits > free {
				return cty.NilVal, function.NewArgErrorf(1, "%s has %d bits left to number networks with, and not %d", p, free, bits)
			}
			n, err := bigArg(2, args[2])
			if err != nil {
				return cty.NilVal, err
			}
			if n.Sign() < 0 || n.BitLen() > bits {
				return cty.NilVal, function.NewArgErrorf(2, "%v does not fit into %d bits; networks count from 0", n, bits)
			}
			sub := netip.PrefixFrom(offset(p, new(big.Int).Lsh(n, uint(free-bits))), p.Bits()+bits)
			return cty.StringVal(sub.String()), nil
		},
	})
}
