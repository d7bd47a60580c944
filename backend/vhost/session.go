package vhost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// A session is one connection of QEMU. Its control goroutine, which is the one
// that calls run, answers QEMU's messages and never waits for the Device but in
// GET_VRING_BASE, where the protocol asks for it.
type session struct {
	srv      *Server
	nc       *net.UnixConn
	messages chan *message
	gone     chan struct{} // closed when QEMU hung up

	agreed     negotiated
	mem        memory
	queues     []*queue
	back       int   // a socket for our own messages, or -1
	told       int64 // the size QEMU last asked for
	configured bool  // QEMU's handshake is over
	closing    bool  // no more rings start
}

func newSession(s *Server, nc *net.UnixConn) *session {
	ss := &session{
		srv: s, nc: nc, back: -1, agreed: s.state.now, told: s.size.Load(),
		messages: make(chan *message), gone: make(chan struct{}),
	}
	for range s.cfg.Queues {
		ss.queues = append(ss.queues, &queue{})
	}
	return ss
}

// run answers until QEMU hangs up or ctx ends; then, once QEMU's handshake is
// over, it lets the rings finish.
func (s *session) run(ctx context.Context) {
	s.srv.stats.connected.Store(true)
	var reader sync.WaitGroup
	ended := make(chan struct{}) // of run, for the reader
	reader.Go(func() { s.read(ended) })
	s.serve(ctx)
	for _, q := range s.queues {
		s.leave(q)
		s.park(q, 0)
		if err := q.close(); err != nil {
			s.srv.log.Warn("vhost queue not closed cleanly", "err", err)
		}
	}
	s.closeBack()
	if err := s.mem.close(); err != nil {
		s.srv.log.Warn("guest memory not unmapped", "err", err)
	}
	close(ended)
	_ = s.nc.Close() // QEMU hears of it as an end of file, which is what is meant
	reader.Wait()
	s.srv.stats.connected.Store(false)
}

// read passes messages to the control goroutine.
func (s *session) read(ended <-chan struct{}) {
	defer close(s.gone)
	for {
		m, err := receive(s.nc)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.srv.log.Warn("vhost connection broke", "err", err)
			}
			return
		}
		select {
		case s.messages <- m:
		case <-ended:
			m.close()
			return
		}
	}
}

func (s *session) serve(ctx context.Context) {
	done := ctx.Done()
	ending := false
	var late <-chan time.Time
	var idle <-chan struct{}
	for {
		select {
		case m := <-s.messages:
			if err := s.answer(m); err != nil {
				s.srv.log.Warn("vhost reply not sent", "err", err)
				return
			}
		case <-s.srv.grown:
			s.tellSize()
		case <-done: // hanging up inside QEMU's handshake would kill its device for good
			done, ending = nil, true
			late = time.After(s.srv.times.handshake)
		case <-s.gone:
			return
		case <-late:
			return
		case <-idle:
			return
		}
		if ending && s.configured && idle == nil {
			late, idle = time.After(s.srv.times.drain), s.drain()
		}
	}
}

// drain halts all rings and returns what tells that their requests are back.
func (s *session) drain() <-chan struct{} {
	s.closing = true
	var rings []*ring
	for _, q := range s.queues {
		if q.ring != nil {
			q.ring.halt()
			rings = append(rings, q.ring)
		}
	}
	all := make(chan struct{})
	s.srv.rings.Go(func() { // ends at the latest when Run cancels the requests
		for _, r := range rings {
			<-r.idle
		}
		close(all)
	})
	return all
}

// answer handles one message and says so if QEMU asked for it. An error means
// that QEMU cannot be talked to any more.
func (s *session) answer(m *message) error {
	defer m.close()
	body, replied, err := s.handleSafely(m)
	if err != nil {
		s.srv.log.Warn("vhost message refused", "message", int(m.kind), "err", err)
	}
	switch {
	case replied:
		return nil
	case body != nil:
		return reply(s.nc, m.kind, body, nil)
	case mustReply(m.kind):
		return reply(s.nc, m.kind, nil, nil) // refused; QEMU takes the empty body for it
	case m.flags&flagNeedReply != 0 && s.agreed.protocol&protocolReplyAck != 0:
		code := uint64(0)
		if err != nil {
			code = 1
		}
		return reply(s.nc, m.kind, u64(code), nil)
	}
	return nil
}

// mustReply says whether QEMU waits for an answer of its own to a message.
func mustReply(k kind) bool {
	switch k {
	case getFeatures, getProtocolFeatures, getVringBase, getQueueNum, getConfig, getInflightFD,
		setLogBase:
		return true
	case setFeatures, setOwner, resetOwner, setMemTable, setLogFD, setVringNum, setVringAddr,
		setVringBase, setVringKick, setVringCall, setVringErr, setProtocolFeatures,
		setVringEnable, setBackendReqFD, setConfig, setInflightFD:
	}
	return false
}

func u64(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// handleSafely keeps a mistake of ours from ending the process.
func (s *session) handleSafely(m *message) (body []byte, replied bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if m.kind == getInflightFD {
		err = s.getInflight(m)
		return nil, err == nil, err
	}
	body, err = s.handle(m)
	return body, false, err
}

// handle does what a message asks for. A body is the answer to those that have
// one of their own.
func (s *session) handle(m *message) (body []byte, err error) {
	switch m.kind {
	case getFeatures:
		return u64(s.srv.features()), nil
	case setFeatures:
		return nil, s.setFeatures(m.body)
	case getProtocolFeatures:
		return u64(protocolOffered), nil
	case setProtocolFeatures:
		return nil, s.setProtocolFeatures(m.body)
	case getQueueNum:
		return u64(uint64(s.srv.cfg.Queues)), nil
	case setOwner, resetOwner, setLogFD: // nothing is to be done
		return nil, nil
	case getConfig:
		return s.getConfig(m.body)
	case setConfig:
		return nil, s.setConfig(m.body)
	case setMemTable:
		return nil, s.setMemory(m)
	case setLogBase:
		return s.setLogBase(m)
	case setInflightFD:
		return nil, s.setInflight(m)
	case setBackendReqFD:
		return nil, s.setBack(m)
	case setVringNum, setVringAddr, setVringBase, setVringEnable:
		return nil, s.setVring(m)
	case setVringKick, setVringCall, setVringErr:
		return nil, s.setVringFile(m)
	case getVringBase:
		return s.stop(m.body)
	case getInflightFD: // has a file in its answer
	}
	return nil, model.Errorf(model.Invalid, "message %d is not known", m.kind)
}

func (s *session) setFeatures(b []byte) error {
	f, err := decodeU64(b)
	if err != nil {
		return err
	}
	if alien := f &^ s.srv.features(); alien != 0 {
		return model.Errorf(model.Invalid, "features %#x were not offered", alien)
	}
	s.agreed.features = f
	s.mem.setLogging(f&featureLogAll != 0)
	// The log comes and goes while the guest runs; it is not agreed on for good.
	return s.srv.state.save(negotiated{f &^ featureLogAll, s.agreed.protocol})
}

func (s *session) setProtocolFeatures(b []byte) error {
	f, err := decodeU64(b)
	if err != nil {
		return err
	}
	if alien := f &^ protocolOffered; alien != 0 {
		return model.Errorf(model.Invalid, "protocol features %#x were not offered", alien)
	}
	s.agreed.protocol = f
	return s.srv.state.save(negotiated{s.agreed.features &^ featureLogAll, f})
}

func (s *session) getConfig(b []byte) ([]byte, error) {
	offset, size, _, err := decodeConfig(b)
	if err != nil {
		return nil, err
	}
	s.configured = true // it ends the handshake
	s.told = s.srv.size.Load()
	return append(append([]byte(nil), b[:configMeta]...), s.srv.config()[offset:offset+size]...), nil
}

// setConfig lets the guest switch its write cache on and off, which changes
// nothing: a write is durable when it is answered, either way.
func (s *session) setConfig(b []byte) error {
	offset, size, _, err := decodeConfig(b)
	if err != nil {
		return err
	}
	if offset != configWCE || size != 1 {
		return model.Errorf(model.Denied, "%d bytes of configuration at %d", size, offset)
	}
	return nil
}

func (s *session) setBack(m *message) error {
	fd, err := m.take()
	if err != nil {
		return err
	}
	s.closeBack()
	s.back = fd
	return nil
}

func (s *session) closeBack() {
	if s.back >= 0 {
		_ = unix.Close(s.back) // nothing is expected from it
	}
	s.back = -1
}

// tellSize tells QEMU that the configuration has changed, if the size has since
// it last asked. QEMU asks for it at once, before it reads anything else, so that
// no answer to this may be waited for.
func (s *session) tellSize() {
	if s.back < 0 || s.told == s.srv.size.Load() {
		return
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(configChanged))
	b = le.AppendUint32(b, flagVersion)
	b = le.AppendUint32(b, 0)
	err := unix.Sendto(s.back, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	if err != nil {
		s.srv.log.Warn("guest not told of the disk's new size", "err", err)
	}
}
