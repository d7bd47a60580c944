package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drystone.example/drystone/backend/model"
)

// qemu-img reads files that strangers made, so it runs with a bound on its
// memory and on its processor time, and is told the format.
const (
	imageMemory = "2147483648" // bytes of address space
	imageCPU    = "3600"       // seconds
	probeTime   = 30 * time.Second
	checkTime   = 10 * time.Minute
	sayLimit    = 64 << 10 // of what it prints
)

// An imageInfo is what qemu-img says of an image.
type imageInfo struct {
	Size     model.Bytes `json:"virtual-size"`
	Backing  string      `json:"backing-filename"`
	Specific struct {
		Data struct {
			DataFile string `json:"data-file"`
			Extents  []struct {
				Filename string `json:"filename"`
			} `json:"extents"`
		} `json:"data"`
	} `json:"format-specific"`
}

// inspectImage says how large the disk in an image file is, and refuses a file
// that is not of the format, that needs other files, that is damaged, or that
// promises more than a volume can be.
func inspectImage(ctx context.Context, path, format string) (model.Bytes, error) {
	if format == formatVHD {
		if err := checkVHD(path); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := limited(ctx, "qemu-img", "info", "--output=json", "-f", format, path)
	var out, say limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &say
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return 0, model.Errorf(model.Unavailable, "qemu-img is not installed on this node")
		}
		return 0, model.Errorf(model.Invalid, "the file is not a %s image: %s", format, lastLine(say.String(), path))
	}
	var info imageInfo
	if err := json.Unmarshal(out.Bytes(), &info); err != nil {
		return 0, fmt.Errorf("read what qemu-img says: %w", err)
	}
	if info.Backing != "" || info.Specific.Data.DataFile != "" {
		return 0, model.Errorf(model.Invalid, "the image refers to another file; flatten it first (qemu-img convert)")
	}
	for _, e := range info.Specific.Data.Extents {
		if filepath.Clean(e.Filename) != filepath.Clean(path) {
			return 0, model.Errorf(model.Invalid, "the image is split over several files; flatten it first (qemu-img convert)")
		}
	}
	size := (info.Size + model.SectorSize - 1) / model.SectorSize * model.SectorSize
	size = max(size, model.MinVolumeSize)
	if err := model.ValidateSize(size); err != nil {
		return 0, err
	}
	return size, checkImage(ctx, path, format)
}

// What qemu-img check ends with where the image is not known to be damaged.
const (
	checkLeaks   = 3  // it is larger than it need be
	checkUnknown = 63 // the format has nothing to check by
)

// checkImage refuses an image whose tables contradict each other or its size: what
// lies beyond the end of a file that was cut short would be read as zeros.
func checkImage(ctx context.Context, path, format string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := limited(ctx, "qemu-img", "check", "-f", format, path).Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("check image: %w", ctx.Err())
	case !errors.As(err, &exit):
		return fmt.Errorf("check image: %w", err)
	case exit.ExitCode() == checkLeaks, exit.ExitCode() == checkUnknown:
		return nil
	}
	return model.Errorf(model.Invalid,
		"the %s image is damaged, or its file was cut short (see qemu-img check)", format)
}

// convertImage writes an image into the volume served at an NBD socket; progress
// is called with the share done, 0 to 1.
func convertImage(ctx context.Context, path, format, socket string, progress func(float64)) error {
	cmd := limited(ctx, "qemu-img", "convert", "-p", "-n", "--target-is-zero", "-W", "-m", "8",
		"-f", format, "-O", "raw", path, "nbd+unix:///?socket="+socket)
	var say limitedBuffer
	cmd.Stderr = &say
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run qemu-img: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run qemu-img: %w", err)
	}
	followProgress(out, progress)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("convert image: %w", ctx.Err())
		}
		return model.Errorf(model.Invalid, "the image could not be read to its end: %s", lastLine(say.String(), path))
	}
	return nil
}

// followProgress reads lines such as "    (12.34/100%)\r" until the end.
func followProgress(out io.Reader, progress func(float64)) {
	s := bufio.NewScanner(out)
	s.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	for s.Scan() {
		_, rest, found := strings.Cut(s.Text(), "(")
		number, _, ok := strings.Cut(rest, "/")
		if percent, err := strconv.ParseFloat(number, 64); found && ok && err == nil {
			progress(percent / 100)
		}
	}
}

func limited(ctx context.Context, name string, args ...string) *exec.Cmd {
	args = append([]string{"--as=" + imageMemory, "--cpu=" + imageCPU, "--core=0", "--", name}, args...)
	cmd := exec.CommandContext(ctx, "prlimit", args...) //nolint:gosec // a tool we name, on files we made
	cmd.WaitDelay = toolPatience
	cmd.Env = toolEnv()
	return cmd
}

// toolPatience is how long a tool that was told to end may still hold its pipes.
const toolPatience = 5 * time.Second

func toolEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
}

// lastLine is the end of what a tool said, without the path of the file, which
// is ours and means nothing to who sent it.
func lastLine(said, path string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	last := strings.ReplaceAll(lines[len(lines)-1], path, "image")
	return strings.TrimPrefix(strings.TrimPrefix(last, "qemu-img: "), "Could not open 'image': ")
}

// A limitedBuffer keeps the first bytes written to it and drops the rest.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := sayLimit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
