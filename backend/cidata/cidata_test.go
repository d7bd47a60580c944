package cidata

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What isoinfo reads of an image is what was put into it, by either of its names, also
// where a file is empty or ends with its sector.
func TestImage(t *testing.T) {
	for _, tt := range []struct{ name, user, meta string }{
		{"both", "#cloud-config\nhostname: ä\n", "instance-id: i-1\n"},
		{"empty", "", ""},
		{"whole sectors", strings.Repeat("u", 2*SectorSize), strings.Repeat("m", SectorSize)},
		{"most", strings.Repeat("u", 64<<10), strings.Repeat("m", 64<<10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			image := Image(tt.user, tt.meta)
			if len(image)%SectorSize != 0 {
				t.Errorf("the image has %d bytes", len(image))
			}
			path := filepath.Join(t.TempDir(), "seed.iso")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			run := func(args ...string) string {
				out, err := exec.Command("isoinfo", append([]string{"-i", path}, args...)...).Output()
				if err != nil {
					t.Fatalf("isoinfo %v: %v: %s", args, err, out)
				}
				return string(out)
			}
			if info := run("-d"); !strings.Contains(info, "Volume id: cidata\n") || !strings.Contains(info, "Joliet with UCS level 3 found") {
				t.Errorf("isoinfo says:\n%s", info)
			}
			for file, want := range map[string]string{"/user-data": tt.user, "/meta-data": tt.meta} {
				if got := run("-J", "-x", file); got != want {
					t.Errorf("%s is %.80q, want %.80q", file, got, want)
				}
			}
			if got := run("-x", "/USER_DATA.;1"); got != tt.user {
				t.Errorf("without Joliet user-data is %.80q", got)
			}
			if files := strings.Fields(run("-J", "-f")); strings.Join(files, " ") != "/meta-data /user-data" {
				t.Errorf("the files are %q", files)
			}
		})
	}
}
