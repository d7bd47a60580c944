package node

import "testing"

// A node is looked for where it says that it is, until the record says anything new.
func TestMoved(t *testing.T) {
	var m moved
	m.set(1, "10.0.0.1", "10.0.0.9")
	for _, c := range []struct{ recorded, want string }{
		{"10.0.0.1", "10.0.0.9"}, {"10.0.0.9", "10.0.0.9"}, {"10.0.0.7", "10.0.0.7"},
	} {
		if got := m.of(1, c.recorded); got != c.want {
			t.Errorf("with %s in the record it is looked for at %s, want %s", c.recorded, got, c.want)
		}
	}
	if got := m.of(2, "10.0.0.2"); got != "10.0.0.2" {
		t.Errorf("another node is looked for at %s", got)
	}
}
