package agent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

func TestInspectImage(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []string{"qcow2", "raw", "vmdk", "vhdx"} {
		path := filepath.Join(dir, "good."+format)
		qemuImg(t, "create", "-q", "-f", format, path, "64M")
		if size, err := inspectImage(t.Context(), path, format); err != nil || size != 64<<20 {
			t.Errorf("%s: %d, %v; want 64 MiB", format, size, err)
		}
	}
}

// What is not of its format, needs another file, or is larger than any volume is
// refused with a sentence that does not show our paths.
func TestInspectImageRefuses(t *testing.T) {
	dir := t.TempDir()
	base, child := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "child.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", base, "64M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", child)
	huge := filepath.Join(dir, "huge.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", huge, "300T")
	junk := filepath.Join(dir, "junk.qcow2")
	if err := os.WriteFile(junk, []byte("not an image at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "elsewhere")+",data_file_raw=on", data, "64M")
	split := filepath.Join(dir, "split.vmdk")
	qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", split, "64M")
	refused := map[string]string{
		child: "qcow2", huge: "qcow2", junk: "qcow2", data: "qcow2", split: "vmdk",
	}
	for _, format := range []string{"qcow2", "vmdk", "vhdx"} {
		refused[cutShort(t, dir, format)] = format
	}
	for path, format := range refused {
		_, err := inspectImage(t.Context(), path, format)
		if model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v, want %s", filepath.Base(path), err, model.Invalid)
		} else if strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the error shows our path: %v", filepath.Base(path), err)
		}
	}
}

// cutShort makes an image with data and takes the second half of its file away.
func cutShort(t *testing.T, dir, format string) string {
	t.Helper()
	raw, path := filepath.Join(dir, "raw"), filepath.Join(dir, "cut."+format)
	if err := os.WriteFile(raw, bytes.Repeat([]byte("data"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", format, raw, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFollowProgress(t *testing.T) {
	var got []float64
	followProgress(strings.NewReader("    (0.00/100%)\r    (12.50/100%)\r    (100.00/100%)\r\n"), func(share float64) {
		got = append(got, share)
	})
	if len(got) != 3 || got[1] != 0.125 || got[2] != 1 {
		t.Errorf("progress %v", got)
	}
}
