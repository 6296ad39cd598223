package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tenement"
)

func TestOptionsThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no name":           {},
		"long name":         {Name: "ninechars"},
		"name with a dash":  {Name: "a-1"},
		"large subnet":      {Name: "a", Subnet: netip.MustParsePrefix("10.0.0.0/12")},
		"small subnet":      {Name: "a", Subnet: netip.MustParsePrefix("10.0.0.0/31")},
		"IPv6":              {Name: "a", Subnet: netip.MustParsePrefix("fd00::/24")},
		"less than nothing": {Name: "a", Ready: -1},
	} {
		if _, err := Open(o); tenement.CodeOf(err) != tenement.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSlotsAndTheirNames(t *testing.T) {
	t.Parallel()
	o := Options{Name: "abcdefgh", Subnet: netip.MustParsePrefix("10.8.3.9/13")}
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	last := o.slots()
	for slot, want := range map[int]string{1: "10.8.0.1", 256: "10.8.1.0", last: "10.15.255.254"} {
		name := o.hostEnd(slot)
		if got, ok := o.slotOf(name); got != slot || !ok || len(name) > 15 {
			t.Errorf("slot %d is %q is %d, %v", slot, name, got, ok)
		}
		if got := o.address(slot).String(); got != want {
			t.Errorf("slot %d has %s, not %s", slot, got, want)
		}
	}
	for _, name := range []string{"abcdefgh", "abcdefgh-", "abcdefgh-0", "abcdefgh-01", "abcdefgh--1", "abcdefg-1", "lo"} {
		if slot, ok := o.slotOf(name); ok {
			t.Errorf("%q is slot %d", name, slot)
		}
	}
}

func TestNameservers(t *testing.T) {
	t.Parallel()
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for name, test := range map[string]struct {
		files []string
		want  []string
	}{
		"in order":              {[]string{"search a.b\nnameserver 192.0.2.3\n nameserver 192.0.2.2 # other\n", ""}, []string{"192.0.2.3", "192.0.2.2"}},
		"behind a local one":    {[]string{"nameserver 127.0.0.53\nnameserver ::1\n", "nameserver 192.0.2.2"}, []string{"192.0.2.2"}},
		"on an own address":     {[]string{"nameserver 192.0.2.1\nnameserver ::ffff:192.0.2.4", ""}, []string{"192.0.2.4"}},
		"IPv6 only":             {[]string{"nameserver fd00::1", ""}, nil},
		"commented and garbled": {[]string{"#nameserver 192.0.2.2\nnameserver\nnameserver x\nnameserver 0.0.0.0", ""}, nil},
	} {
		var files []string
		for i, text := range test.files {
			file := filepath.Join(t.TempDir(), string(rune('a'+i)))
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		listed, err := nameservers(own, append(files, "/no/such/file")...)
		var got []string
		for _, a := range listed {
			got = append(got, a.String())
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, test.want)
		}
	}
}
