package conformance

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mixed is every size from 512 bytes to 64 KiB, at every 512 bytes.
var mixed = []string{"--bsrange=512-64k", "--blockalign=512"}

// fio writes requests of all sizes, trims between them, and finds each block to be
// what was written there last, and zeros where the last was a trim.
func (s *suite) fio(t *testing.T) {
	s.volume(t, "fio", "512M")
	e := s.nbd(t, "fio", "node1")
	size := "--size=" + pick("16m", "256m")
	verified := []string{"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0"}
	zeros := []string{"--rw=randread", "--iodepth=16", "--verify=pattern", "--verify_pattern=0x00", "--verify_fatal=1"}
	for _, job := range []struct {
		name                string
		args                []string
		reads, writes, trim bool
	}{
		{"write", append([]string{"--rw=randwrite", "--iodepth=32", "--loops=2"}, verified...), true, true, false},
		{"read and write", append([]string{"--rw=randrw", "--iodepth=16"}, verified...), true, true, false},
		// Every block is trimmed and then written. fio sends both at once unless it is
		// told to wait for what overlaps.
		{
			"trim and write",
			append([]string{"--rw=randtrimwrite", "--iodepth=16", "--serialize_overlap=1"}, verified...),
			true, true, true,
		},
		{"trim all", []string{"--rw=randtrim", "--iodepth=16"}, false, false, true},
		{"zeros", zeros, true, false, false},
	} {
		t.Run(job.name, func(t *testing.T) {
			did := fio(t, e.URI, slices.Concat([]string{size}, mixed, job.args)...)
			if did.Read.Total > 0 != job.reads || did.Write.Total > 0 != job.writes || did.Trim.Total > 0 != job.trim {
				t.Errorf("fio did %+v", did)
			}
			t.Logf("%d reads, %d writes, %d trims", did.Read.Total, did.Write.Total, did.Trim.Total)
		})
	}
	qemuIO(t, e.URI, []string{"write -q -P 1 11M 512"})
	if out, err := tryFio(t, e.URI, slices.Concat([]string{size}, mixed, zeros)...); err == nil {
		t.Errorf("fio did not see a block that is not zeros: %s", out)
	}
}

// A fioJob is what fio says that it did.
type fioJob struct {
	Error             int
	Read, Write, Trim struct {
		Total int64 `json:"total_ios"`
	}
}

// fio runs one job over NBD and fails the test if it found anything wrong.
func fio(t *testing.T, uri string, args ...string) fioJob {
	t.Helper()
	out, err := tryFio(t, uri, args...)
	if err != nil {
		t.Fatalf("fio %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var report struct{ Jobs []fioJob }
	_, text, _ := strings.Cut(out, "{")
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&report); err != nil || len(report.Jobs) != 1 {
		t.Fatalf("fio printed %q: %v", out, err)
	}
	if report.Jobs[0].Error != 0 {
		t.Fatalf("fio ended with error %d\n%s", report.Jobs[0].Error, out)
	}
	return report.Jobs[0]
}

func tryFio(t *testing.T, uri string, args ...string) (string, error) {
	t.Helper()
	return try(t, "fio", append([]string{
		"--name=job", "--ioengine=nbd", "--uri=" + uri, "--output-format=json",
		"--randseed=" + strconv.FormatUint(*seed, 10),
	}, args...)...)
}
