package virt

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
)

func testNICs() []NIC {
	return []NIC{
		{MAC: "02:00:00:00:00:01", Model: model.NICVirtio, Bridge: "br0", VLAN: 20, Connected: true},
		{MAC: "02:00:00:00:00:02", Model: model.NICE1000, Slot: 1, Connected: true},
		{MAC: "02:00:00:00:00:03", Model: model.NICRTL8139, Slot: 7, Bridge: "br1"},
	}
}

// What is written is what is read back: otherwise a guest's cards would be changed for
// ever.
func TestNICRoundTrip(t *testing.T) {
	var got []NIC
	for _, n := range testNICs() {
		got = append(got, nicOf(n.xml()))
	}
	if diff := cmp.Diff(testNICs(), got); diff != "" {
		t.Errorf("the cards differ when they are read back:\n%s", diff)
	}
}

func TestNICSteps(t *testing.T) {
	a := NIC{MAC: "02:00:00:00:00:0a", Model: model.NICVirtio, Bridge: "br0", Connected: true}
	b := NIC{MAC: "02:00:00:00:00:0b", Model: model.NICVirtio, Slot: 1, Connected: true}
	with := func(n NIC, change func(*NIC)) NIC { change(&n); return n }
	down := with(a, func(n *NIC) { n.Connected = false })
	other := with(a, func(n *NIC) { n.Bridge = "br1" })
	user := with(a, func(n *NIC) { n.Bridge = "" })
	slow := with(a, func(n *NIC) { n.Model = model.NICE1000 })
	inFirst := with(b, func(n *NIC) { n.Slot = 0 })
	for name, tt := range map[string]struct {
		have, want []NIC
		steps      []nicStep
	}{
		"as it should be":        {[]NIC{a, b}, []NIC{b, a}, nil},
		"one more":               {[]NIC{a}, []NIC{a, b}, []nicStep{{"add", b}}},
		"one less":               {[]NIC{a, b}, []NIC{b}, []nicStep{{"remove", a}}},
		"cable out":              {[]NIC{a}, []NIC{down}, []nicStep{{"update", down}}},
		"another bridge":         {[]NIC{a}, []NIC{other}, []nicStep{{"update", other}}},
		"another kind":           {[]NIC{a}, []NIC{user}, []nicStep{{"remove", a}}},
		"another model":          {[]NIC{a}, []NIC{slow}, []nicStep{{"remove", a}}},
		"another in its slot":    {[]NIC{a}, []NIC{inFirst}, []nicStep{{"remove", a}}},
		"it moves to the slot":   {[]NIC{b}, []NIC{inFirst}, []nicStep{{"remove", b}}},
		"after the first is out": {nil, []NIC{inFirst}, []nicStep{{"add", inFirst}}},
	} {
		if diff := cmp.Diff(tt.steps, nicSteps(tt.have, tt.want), cmp.AllowUnexported(nicStep{})); diff != "" {
			t.Errorf("%s: the steps differ (-want +got):\n%s", name, diff)
		}
	}
}

// A description for another node has the cards in the order in which the guest got them,
// and is otherwise what it was.
func TestInOrderOf(t *testing.T) {
	d := testDomain()
	d.NICs, d.Hardware = testNICs(), 2
	h := testHypervisor(t, TCG)
	doc, err := h.xml(d)
	if err != nil {
		t.Fatal(err)
	}
	read := func(doc string) (d libvirtxml.Domain) {
		t.Helper()
		if err := d.Unmarshal(doc); err != nil {
			t.Fatal(err)
		}
		return d
	}
	same, err := inOrderOf(read(doc), doc)
	if err != nil || same != doc {
		t.Errorf("in the order it has it is changed (%v):\n%s", err, cmp.Diff(doc, same))
	}
	d.NICs = []NIC{testNICs()[2], testNICs()[0], testNICs()[1]}
	want, err := h.xml(d)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := inOrderOf(read(want), doc); err != nil || got != want {
		t.Errorf("in another order it is (%v):\n%s", err, cmp.Diff(want, got))
	}
	live := read(doc) // a disk that came later than a CD-ROM drive
	slices.Reverse(live.Devices.Disks)
	got, err := inOrderOf(live, doc)
	if err != nil {
		t.Fatal(err)
	}
	for i, disk := range read(got).Devices.Disks {
		if want := live.Devices.Disks[i].Target.Dev; disk.Target.Dev != want {
			t.Errorf("disk %d is %s, the guest has %s there", i, disk.Target.Dev, want)
		}
	}
}
