package model

import "testing"

func TestMAC(t *testing.T) {
	for in, want := range map[string]MAC{
		"02:AB:cd:00:00:01":   "02:ab:cd:00:00:01",
		"52:54:00:12:34:56":   "52:54:00:12:34:56",
		"01:00:5e:00:00:01":   "", // a group
		"ff:ff:ff:ff:ff:ff":   "",
		"fe:00:00:00:00:01":   "", // libvirt's end of a card
		"00:00:00:00:00:00":   "",
		"02:00:00:00:00":      "",
		"02:00:00:00:00:00:0": "",
		"2:0:0:0:0:0":         "",
		"02-00-00-00-00-00":   "",
		"02:00:00:00:00:0g":   "",
		"":                    "",
	} {
		got, err := ParseMAC(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseMAC(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	a, b := NewMAC(), NewMAC()
	if got, err := ParseMAC(string(a)); err != nil || got != a || a == b {
		t.Errorf("NewMAC gives %s and %s (%v)", a, b, err)
	}
}
