package iobuf

import "testing"

func TestGet(t *testing.T) {
	for _, n := range []int{1, 512, 4096, 4097, 65536, 1 << 20, 8 << 20} {
		b := Get(n)
		if len(b.Bytes) != n || !IsAligned(b.Bytes) {
			t.Errorf("Get(%d): %d bytes, aligned %v", n, len(b.Bytes), IsAligned(b.Bytes))
		}
		b.Release()
	}
}

// A buffer is not handed out again while anybody has it.
func TestRetain(t *testing.T) {
	b := Get(4096)
	b.Bytes[0] = 7
	b.Retain()
	b.Release()
	if c := Get(4096); &c.Bytes[0] == &b.Bytes[0] {
		t.Error("a retained buffer was handed out again")
	}
	if b.Bytes[0] != 7 {
		t.Error("a retained buffer changed")
	}
	b.Release()
}

func TestReleaseTooOften(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a second release went unnoticed")
		}
	}()
	b := Get(4096)
	b.Release()
	b.Release()
}
