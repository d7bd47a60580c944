package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestFilesKeep(t *testing.T) {
	f := NewFiles(t.TempDir())
	body := []byte("a kernel")
	if _, err := f.Path(digestOf(body)); model.CodeOf(err) != model.NotFound {
		t.Fatalf("Path before Put: %v", err)
	}
	size, err := f.Put(digestOf(body), bytes.NewReader(body))
	if err != nil || size != model.Bytes(len(body)) {
		t.Fatalf("Put = %d, %v", size, err)
	}
	path, err := f.Path(digestOf(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
		t.Errorf("kept %q, %v", got, err)
	}
}

// What does not have its digest, or no digest at all, is refused, and nothing of
// it stays.
func TestFilesRefuse(t *testing.T) {
	dir := t.TempDir()
	f := NewFiles(dir)
	body := []byte("an initrd")
	for name, digest := range map[string]string{
		"another":   digestOf([]byte("something else")),
		"upper":     strings.ToUpper(digestOf(body)),
		"traversal": "../../../../etc/passwd",
		"empty":     "",
	} {
		if _, err := f.Put(digest, bytes.NewReader(body)); model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: Put = %v, want %s", name, err, model.Invalid)
		}
		if _, err := f.Path(digest); err == nil {
			t.Errorf("%s: it is there", name)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
