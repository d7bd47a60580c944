// Command verifier is the program of the demo guest: it writes self-describing
// blocks to a disk, reads them back at random, and compares them with what it
// remembers. Each second it prints one line of progress; whatever is wrong with
// the disk it prints as a line that starts with VERIFY ERROR.
//
// It takes its options from its arguments, as words like drystone.rate=200, so
// that init can hand it the kernel's command line as it is. A disk with blocks
// of an earlier run is scanned first: each must be whole and in its place.
package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stdout, "VERIFY ERROR %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := defaults()
	if err := o.parse(args); err != nil {
		return err
	}
	if o.guest == 0 {
		id, err := machineID("/sys/class/dmi/id/product_uuid")
		if err != nil {
			return fmt.Errorf("who am I (or say drystone.guest=): %w", err)
		}
		o.guest = id
	}
	disk, err := openDisk(o.disk)
	if err != nil {
		return err
	}
	v, err := newVerifier(o, disk, out)
	if err != nil {
		return errors.Join(err, disk.Close())
	}
	return errors.Join(v.run(ctx), disk.Close())
}

// machineID makes a number of the machine's UUID.
func machineID(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(b) != 16 {
		return 0, fmt.Errorf("%q is not a UUID", text)
	}
	return binary.BigEndian.Uint64(b) ^ binary.BigEndian.Uint64(b[8:]), nil
}
