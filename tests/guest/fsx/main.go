// Command fsx does random things to files and compares each with a model in memory:
// it writes, reads, truncates, punches holes, zeroes, syncs, and reads past the cache.
// It is what a guest runs on a file system whose disk is a volume.
//
//	fsx -seed N -ops N -files N -size BYTES DIR
//
// The files stay, as the last step left them. The same arguments do the same.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

func main() {
	err := run(os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fsx:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("fsx", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "what is random is made from it")
	ops := flags.Int("ops", 1000, "steps on each file")
	files := flags.Int("files", 1, "files at a time")
	size := flags.Int("size", 4<<20, "the most that a file has")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || *ops < 1 || *files < 1 || *size < largest {
		return fmt.Errorf("one folder, at least one step and one file of %d bytes are needed", largest)
	}
	var wait sync.WaitGroup
	errs := make([]error, *files)
	for i := range errs {
		wait.Go(func() {
			path := filepath.Join(flags.Arg(0), fmt.Sprintf("fsx%d", i))
			errs[i] = exercise(path, *seed+uint64(i), *ops, *size)
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "fsx: %d files, %d steps each from seed %d, all as it must be\n", *files, *ops, *seed)
	return err
}

// exercise does so many steps to a new file.
func exercise(path string, seed uint64, ops, size int) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	w := newWalk(f, seed, size)
	for range ops {
		if err := w.step(); err != nil {
			return errors.Join(fmt.Errorf("%s, seed %d: %w", path, seed, err), f.close())
		}
	}
	if err := errors.Join(w.past(), f.close()); err != nil {
		return fmt.Errorf("%s, seed %d: %w", path, seed, err)
	}
	return nil
}
