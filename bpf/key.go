package bpf

// Short returns the Key as Services tells it: the maps have place for 135 bytes
// of a name, and a longer one ends in a digest of the whole. Keys that are equal
// stay equal, and Short of a short Key is the same.
func (k Key) Short() Key { return k.short() }
