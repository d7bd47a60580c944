package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"drystone.example/drystone/backend/model"
)

// errAbort ends a handshake that the client gave up politely.
var errAbort = errors.New("the client left")

// A handshake is the talk before the first request.
type handshake struct {
	cfg  *Config
	in   *bufio.Reader
	out  io.Writer
	opts agreement

	noZeroes bool
}

// An agreement is what the handshake settled.
type agreement struct {
	structured bool
	contexts   []metaContext // that a block status answers for
}

// A metaContext is one that the client chose.
type metaContext struct {
	name   string
	id     uint32
	status Status
}

// run leads the handshake up to where requests begin.
func (h *handshake) run() (agreement, error) {
	be := binary.BigEndian
	hello := be.AppendUint64(nil, magicServer)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, fixedNewstyle|noZeroes)
	if _, err := h.out.Write(hello); err != nil {
		return agreement{}, err
	}
	var flags [4]byte
	if _, err := io.ReadFull(h.in, flags[:]); err != nil {
		return agreement{}, err
	}
	got := be.Uint32(flags[:])
	if got&fixedNewstyle == 0 || got&^(fixedNewstyle|noZeroes) != 0 {
		return agreement{}, model.Errorf(model.Invalid, "client flags %#x", got)
	}
	h.noZeroes = got&noZeroes != 0
	for {
		done, err := h.option()
		if err != nil || done {
			return h.opts, err
		}
	}
}

// option reads and answers one option, and reports whether it was the last.
func (h *handshake) option() (done bool, err error) {
	be := binary.BigEndian
	var head [16]byte
	if _, err := io.ReadFull(h.in, head[:]); err != nil {
		return false, err
	}
	if be.Uint64(head[:]) != magicOption {
		return false, model.Errorf(model.Invalid, "no option where one was due")
	}
	opt, n := option(be.Uint32(head[8:])), be.Uint32(head[12:])
	if n > optionMax {
		if _, err := io.CopyN(io.Discard, h.in, int64(n)); err != nil {
			return false, err
		}
		return false, h.answer(opt, repTooBig, nil)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(h.in, body); err != nil {
		return false, err
	}
	switch opt {
	case optExportName:
		return true, h.exportName(string(body))
	case optAbort:
		return false, errors.Join(errAbort, h.answer(opt, repAck, nil))
	case optGo, optInfo:
		return h.info(opt, body)
	case optList:
		return false, h.list(body)
	case optStructured:
		if len(body) > 0 {
			return false, h.answer(opt, repInvalid, nil)
		}
		h.opts.structured = true
		return false, h.answer(opt, repAck, nil)
	case optListMeta, optSetMeta:
		return false, h.meta(opt, body)
	default:
		return false, h.answer(opt, repUnsup, nil)
	}
}

func (h *handshake) answer(opt option, a answer, body []byte) error {
	be := binary.BigEndian
	b := be.AppendUint64(make([]byte, 0, 20+len(body)), magicAnswer)
	b = be.AppendUint32(b, uint32(opt))
	b = be.AppendUint32(b, uint32(a))
	b = be.AppendUint32(b, uint32(len(body)))
	_, err := h.out.Write(append(b, body...))
	return err
}

func (h *handshake) known(name string) bool { return name == "" || name == h.cfg.Name }

// exportName is the old way to begin: it has no way to refuse but to hang up.
func (h *handshake) exportName(name string) error {
	if !h.known(name) {
		return model.Errorf(model.NotFound, "the client asked for export %q", name)
	}
	be := binary.BigEndian
	b := be.AppendUint64(nil, uint64(h.size()))
	b = be.AppendUint16(b, h.transmissionFlags())
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := h.out.Write(b)
	return err
}

func (h *handshake) info(opt option, body []byte) (done bool, err error) {
	g, ok := decodeGo(body)
	if !ok {
		return false, h.answer(opt, repInvalid, nil)
	}
	if !h.known(g.name) {
		return false, h.answer(opt, repUnknown, nil)
	}
	be := binary.BigEndian
	b := be.AppendUint16(nil, infoExport)
	b = be.AppendUint64(b, uint64(h.size()))
	b = be.AppendUint16(b, h.transmissionFlags())
	if err := h.answer(opt, repInfo, b); err != nil {
		return false, err
	}
	b = be.AppendUint16(nil, infoBlockSize)
	b = be.AppendUint32(b, uint32(model.SectorSize))
	b = be.AppendUint32(b, uint32(model.BlockSize))
	b = be.AppendUint32(b, payloadMax)
	if err := h.answer(opt, repInfo, b); err != nil {
		return false, err
	}
	if slices.Contains(g.infos, infoName) {
		b = append(be.AppendUint16(nil, infoName), h.cfg.Name...)
		if err := h.answer(opt, repInfo, b); err != nil {
			return false, err
		}
	}
	return opt == optGo, h.answer(opt, repAck, nil)
}

func (h *handshake) list(body []byte) error {
	if len(body) > 0 {
		return h.answer(optList, repInvalid, nil)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(h.cfg.Name)))
	if err := h.answer(optList, repServer, append(b, h.cfg.Name...)); err != nil {
		return err
	}
	return h.answer(optList, repAck, nil)
}

// meta answers which contexts there are, or settles which may be asked for.
func (h *handshake) meta(opt option, body []byte) error {
	m, ok := decodeMeta(body)
	if !ok || (opt == optSetMeta && !h.opts.structured) {
		return h.answer(opt, repInvalid, nil)
	}
	if opt == optSetMeta {
		h.opts.contexts = nil
	}
	if !h.known(m.name) {
		return h.answer(opt, repUnknown, nil)
	}
	if opt == optSetMeta {
		return h.chooseContexts(m.queries)
	}
	for _, name := range h.listContexts(m.queries) {
		if err := h.answer(opt, repMeta, append(make([]byte, 4), name...)); err != nil {
			return err
		}
	}
	return h.answer(opt, repAck, nil)
}

// chooseContexts settles the contexts of exactly these names, each once; of those that
// there are not, or that are too many, nothing is said.
func (h *handshake) chooseContexts(names []string) error {
	for _, name := range names {
		twice := slices.ContainsFunc(h.opts.contexts, func(c metaContext) bool { return c.name == name })
		if twice || len(h.opts.contexts) == contextsMax {
			continue
		}
		c := metaContext{name: name, id: contextID + uint32(len(h.opts.contexts))}
		if name == contextAllocation {
			c.status = allocation(h.cfg.Device)
		} else if more, ok := h.cfg.Device.(Contexts); ok {
			c.status = more.OpenContext(name)
		}
		if c.status == nil {
			continue
		}
		h.opts.contexts = append(h.opts.contexts, c)
		b := append(binary.BigEndian.AppendUint32(nil, c.id), name...)
		if err := h.answer(optSetMeta, repMeta, b); err != nil {
			return err
		}
	}
	return h.answer(optSetMeta, repAck, nil)
}

// listContexts returns what any of the queries means, each once.
func (h *handshake) listContexts(queries []string) (names []string) {
	if len(queries) == 0 {
		queries = []string{""}
	}
	seen := map[string]bool{}
	for _, q := range queries {
		var found []string
		if q == "" || q == contextNamespace || q == contextAllocation {
			found = append(found, contextAllocation)
		}
		if more, ok := h.cfg.Device.(Contexts); ok {
			found = append(found, more.ListContexts(q)...)
		}
		for _, name := range found {
			if !seen[name] {
				names, seen[name] = append(names, name), true
			}
		}
	}
	return names
}

// size is a multiple of the smallest request.
func (h *handshake) size() int64 {
	return h.cfg.Device.Size() &^ (int64(model.SectorSize) - 1)
}

func (h *handshake) transmissionFlags() uint16 {
	f := uint16(hasFlags | sendFlush | sendFUA | canMultiConn)
	if h.opts.structured {
		f |= sendDF
	}
	if h.cfg.ReadOnly {
		return f | readOnly
	}
	return f | sendTrim | sendZeroes
}
