package nbd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"testing"
)

// Whatever a client says during the handshake, the server neither falls over nor
// answers without end.
func FuzzHandshake(f *testing.F) {
	opt := func(o option, body []byte) []byte {
		b := binary.BigEndian.AppendUint64(nil, magicOption)
		b = binary.BigEndian.AppendUint32(b, uint32(o))
		return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
	}
	flags := []byte{0, 0, 0, 3}
	f.Add(bytes.Join([][]byte{flags, opt(optStructured, nil), opt(optGo, goBody("", 3))}, nil))
	f.Add(bytes.Join([][]byte{flags, opt(optListMeta, metaBody("d")), opt(optAbort, nil)}, nil))
	f.Add(bytes.Join([][]byte{flags, opt(optSetMeta, metaBody("d", contextAllocation, "test:1", "test:1"))}, nil))
	f.Add(bytes.Join([][]byte{flags, opt(optList, nil), opt(optExportName, []byte("d"))}, nil))
	cfg := &Config{Name: "d", Device: colours{newMemory(4096)}}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		h := &handshake{cfg: cfg, in: bufio.NewReader(bytes.NewReader(in)), out: &out}
		agreed, err := h.run()
		if err == nil && len(agreed.contexts) > 0 && !agreed.structured {
			t.Error("a context without structured replies")
		}
		if out.Len() > 1024+64*len(in) {
			t.Errorf("%d bytes were answered with %d", len(in), out.Len())
		}
	})
}

// A request that check lets pass lies within the device.
func FuzzRequest(f *testing.F) {
	f.Add(binary.BigEndian.AppendUint64(make([]byte, 0, requestSize), magicRequest))
	s := &Server{cfg: Config{Device: newMemory(1 << 20)}}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < requestSize {
			return
		}
		binary.BigEndian.PutUint32(b, magicRequest)
		h, _ := decodeHeader(b[:requestSize])
		if h.cmd == cmdDisconnect {
			return
		}
		c := &conn{srv: s, opts: agreement{structured: true, contexts: []metaContext{{}}}}
		r := &request{header: h}
		err := c.check(r)
		if err == nil && h.cmd != cmdFlush && (h.off > 1<<20 || uint64(h.length) > 1<<20-h.off) {
			t.Errorf("command %d: %d bytes at %d pass for 1 MiB", h.cmd, h.length, h.off)
		}
	})
}
