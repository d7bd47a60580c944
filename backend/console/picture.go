package console

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"time"

	"drystone.example/drystone/backend/model"
)

// The bounds of a screenshot. What QEMU says is not trusted.
const (
	pictureTime  = 10 * time.Second
	maxSide      = 8 << 10          // pixels
	maxPixels    = 16 << 20         // of a screen
	maxPicture   = 72 << 20         // bytes of a PNG file: of noise, it has as many as its pixels
	maxRectangle = 1 << 15          // parts of an update
	desktopSize  = 0xffffffff - 222 // the pseudo-encoding by which a screen says that its size changed
)

// ServePicture answers a Fetch: a screenshot as PNG, or why there is none.
func (d *Desk) ServePicture(ctx context.Context, conn net.Conn) {
	if err := conn.SetDeadline(time.Now().Add(2 * pictureTime)); err != nil {
		return
	}
	h, err := readHello(conn)
	var p []byte
	if err == nil {
		p, err = d.picture(ctx, h.VM)
	}
	for err == nil && len(p) > 0 {
		n := min(len(p), maxFrame)
		err = writeFrame(conn, frameData, p[:n])
		p = p[n:]
	}
	d.refuse(conn, err)
}

// Fetch gets a screenshot of a machine over a connection to its node, as a PNG file.
// The code is Conflict if the machine is not running.
func Fetch(ctx context.Context, conn net.Conn, vm model.VMID) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := writeJSON(conn, frameHello, Hello{VM: vm, Kind: Screen}); err != nil {
		return nil, fmt.Errorf("fetch screenshot: %w", err)
	}
	var out []byte
	for buf := make([]byte, maxFrame); len(out) < maxPicture; {
		kind, p, err := readFrame(conn, buf)
		if err != nil {
			return nil, fmt.Errorf("fetch screenshot: %w", err)
		}
		if kind == frameData {
			out = append(out, p...)
			continue
		}
		var e ending
		if err := json.Unmarshal(p, &e); err != nil {
			return nil, fmt.Errorf("fetch screenshot: %w", err)
		}
		if err := e.err(); err != io.EOF { //nolint:errorlint // ours, as it is
			return nil, fmt.Errorf("fetch screenshot: %w", err)
		}
		return out, nil
	}
	return nil, model.Errorf(model.Internal, "a screenshot has more than %d bytes", maxPicture)
}

// picture takes a screenshot; a bounded number at a time, for each takes memory.
func (d *Desk) picture(ctx context.Context, vm model.VMID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pictureTime)
	defer cancel()
	select {
	case d.pictures <- struct{}{}:
	case <-ctx.Done():
		return nil, model.Errorf(model.Unavailable, "too many screenshots are being taken")
	}
	defer func() { <-d.pictures }()
	conn, err := d.guests.DialDisplay(ctx, vm)
	if err != nil {
		return nil, err //nolint:wrapcheck // it has its code
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(pictureTime)); err != nil {
		return nil, fmt.Errorf("take screenshot: %w", err)
	}
	img, err := capture(conn)
	if err != nil {
		return nil, fmt.Errorf("take screenshot: %w", err)
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, img); err != nil {
		return nil, fmt.Errorf("encode screenshot: %w", err)
	}
	return out.Bytes(), nil
}

// A viewer is the client of a display for one picture.
type viewer struct {
	in   *bufio.Reader
	out  io.Writer
	img  *image.RGBA
	left int // pixels that have not come
}

// capture reads one whole picture of a display.
func capture(conn io.ReadWriter) (image.Image, error) {
	v := viewer{in: bufio.NewReaderSize(conn, 64<<10), out: conn}
	if err := v.greet(); err != nil {
		return nil, err
	}
	if err := v.request(0); err != nil {
		return nil, err
	}
	for v.left > 0 {
		if err := v.update(); err != nil {
			return nil, err
		}
	}
	return v.img, nil
}

func (v *viewer) read(n int) ([]byte, error) {
	p := make([]byte, n)
	_, err := io.ReadFull(v.in, p)
	return p, err //nolint:wrapcheck // of the connection
}

func (v *viewer) send(p ...byte) error {
	_, err := v.out.Write(p)
	return err //nolint:wrapcheck // of the connection
}

// greet is the handshake, and the choice of plain pixels of 32 bits.
func (v *viewer) greet() error {
	if _, err := v.read(len(rfbVersion)); err != nil {
		return err
	}
	if err := v.send([]byte(rfbVersion)...); err != nil {
		return err
	}
	n, err := v.read(1)
	if err != nil {
		return err
	}
	kinds, err := v.read(int(n[0]))
	if err != nil {
		return err
	}
	if !bytes.Contains(kinds, []byte{rfbNone}) {
		return model.Errorf(model.Internal, "the display wants a password")
	}
	if err := v.send(rfbNone); err != nil {
		return err
	}
	p, err := v.read(4)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(p) != 0 {
		return model.Errorf(model.Internal, "the display refused its client")
	}
	if err := v.send(1); err != nil { // to be shared
		return err
	}
	if p, err = v.read(24); err != nil {
		return err
	}
	name := binary.BigEndian.Uint32(p[20:])
	if name > 4<<10 {
		return model.Errorf(model.Internal, "the display has a name of %d bytes", name)
	}
	if _, err := v.read(int(name)); err != nil {
		return err
	}
	if err := v.size(p); err != nil {
		return err
	}
	// Red, green, blue and nothing, each a byte, in this order.
	format := []byte{rfbSetPixelFormat, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0}
	return v.send(append(format, rfbSetEncodings, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x21)...)
}

// size begins a picture as wide and high as p says.
func (v *viewer) size(p []byte) error {
	w, h := int(binary.BigEndian.Uint16(p)), int(binary.BigEndian.Uint16(p[2:]))
	if w == 0 || h == 0 || w > maxSide || h > maxSide || w*h > maxPixels {
		return model.Errorf(model.Internal, "the display says that it has %d times %d pixels", w, h)
	}
	v.img, v.left = image.NewRGBA(image.Rect(0, 0, w, h)), w*h
	return nil
}

// request asks for all of the picture, or for what changes of it.
func (v *viewer) request(changes byte) error {
	p := []byte{rfbUpdateRequest, changes, 0, 0, 0, 0}
	p = binary.BigEndian.AppendUint16(p, uint16(v.img.Rect.Dx())) // of two bytes
	p = binary.BigEndian.AppendUint16(p, uint16(v.img.Rect.Dy())) // of two bytes
	return v.send(p...)
}

// update reads one message of the display, and asks for the next.
func (v *viewer) update() error {
	kind, err := v.read(1)
	if err != nil {
		return err
	}
	switch kind[0] {
	case 0:
	case 2: // the bell
		return nil
	case 3: // what was cut
		p, err := v.read(7)
		if err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, v.in, int64(binary.BigEndian.Uint32(p[3:])))
		return err //nolint:wrapcheck // of the connection
	default:
		return model.Errorf(model.Internal, "the display sent a message of the unknown kind %d", kind[0])
	}
	p, err := v.read(3)
	if err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(p[1:]))
	if n > maxRectangle {
		return model.Errorf(model.Internal, "the display sent %d parts of a picture", n)
	}
	changes := byte(1)
	for range n {
		resized, err := v.rectangle()
		if err != nil {
			return err
		}
		if resized {
			changes = 0
		}
	}
	return v.request(changes)
}

// rectangle reads one part of a picture.
func (v *viewer) rectangle() (resized bool, err error) {
	p, err := v.read(12)
	if err != nil {
		return false, err
	}
	at := func(i int) int { return int(binary.BigEndian.Uint16(p[i:])) }
	switch encoding := binary.BigEndian.Uint32(p[8:]); encoding {
	case desktopSize:
		return true, v.size(p[4:8])
	case 0:
	default:
		return false, model.Errorf(model.Internal, "the display sent pixels of the unknown encoding %d", int32(encoding)) // it has a sign
	}
	r := image.Rect(at(0), at(2), at(0)+at(4), at(2)+at(6))
	if !r.In(v.img.Rect) {
		return false, model.Errorf(model.Internal, "the display sent pixels beside its picture")
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		i := v.img.PixOffset(r.Min.X, y)
		row := v.img.Pix[i : i+4*r.Dx()]
		if _, err := io.ReadFull(v.in, row); err != nil {
			return false, err //nolint:wrapcheck // of the connection
		}
		for x := 3; x < len(row); x += 4 {
			row[x] = 0xff
		}
	}
	v.left -= r.Dx() * r.Dy()
	return false, nil
}
