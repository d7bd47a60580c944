package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

// onNode begins a path that is on the node.
const onNode = "node:"

func newVMExport(a *app) *cobra.Command {
	var to, format string
	c := &cobra.Command{
		Use: "export VM[@SNAPSHOT]", Short: "Make files of a machine",
		Long: `Make files of a machine that is off, or of a snapshot of all its disks.

As qcow2 it becomes an archive (tar) with an image of each disk and a description, machine.json,
from which drystone vm import makes the machine again, in any cluster. As ova it is for other
products. --to node:PATH writes to a folder of the node instead (an NFS share that is mounted
there, say), which export_dirs in the node's node.json has to name; as qcow2, PATH becomes a
folder with the images and the description.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, snapshot, _ := strings.Cut(args[0], "@")
			spec := schema.VMExportSpec{Format: schema.ExportFormat(format), Snapshot: snapshot}
			if spec.Format != schema.ExportQcow2 && spec.Format != schema.ExportOVA {
				return usagef("a machine is exported as qcow2 or ova, not %q", format)
			}
			path, remote := strings.CutPrefix(to, onNode)
			if remote {
				spec.Path = path
			}
			return a.with(cmd, func(c *client.Client) error {
				if remote {
					path = ""
				}
				return a.exportVM(cmd.Context(), c, ref, spec, path)
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "file to write, or node:PATH (default: a file here that has the machine's name)")
	c.Flags().StringVar(&format, "format", string(schema.ExportQcow2), "qcow2 or ova")
	return c
}

func (a *app) exportVM(ctx context.Context, c *client.Client, ref string, spec schema.VMExportSpec, to string) error {
	bar := a.progress("export")
	defer bar.end()
	last, err := c.ExportVM(ctx, ref, spec, func(e schema.VMExportEvent) {
		bar.set(e.Phase, int64(e.Done), int64(e.Total))
	})
	if err != nil {
		return err
	}
	if d := last.Download; d != nil {
		last.Path = cmp.Or(to, d.File)
		if err := fetchExport(ctx, c, *d, last.Path, bar); err != nil {
			return err
		}
	}
	bar.end()
	return show(a, last, func(w io.Writer, x schema.VMExportEvent) {
		if x.Download == nil {
			say(w, "the machine is exported to %s on the node\n", x.Path)
			return
		}
		say(w, "the machine is exported to %s (%s)\n", x.Path, size(x.Download.Size))
	})
}

// fetchExport downloads a file, which has its name when it is whole, and removes it from
// the node. An interruption does not begin it anew.
func fetchExport(ctx context.Context, c *client.Client, d schema.Download, to string, bar *bar) (err error) {
	f, err := os.CreateTemp(filepath.Dir(to), ".drystone-*")
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = fetchAll(ctx, c, d, f, bar)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return fmt.Errorf("name the file: %w", err)
	}
	return c.DeleteDownload(ctx, d.ID)
}

func fetchAll(ctx context.Context, c *client.Client, d schema.Download, f *os.File, bar *bar) error {
	came := model.Bytes(0)
	for last := time.Now(); came < d.Size; {
		n, err := c.Download(ctx, d.ID, came, &barred{to: f, bar: bar, done: came, total: d.Size})
		came += n
		if n > 0 {
			last = time.Now()
		}
		switch {
		case err == nil && came < d.Size, err != nil && model.CodeOf(err) == model.Unavailable && ctx.Err() == nil && time.Since(last) < sendPatience:
		case err != nil:
			return err
		}
		if came < d.Size {
			select {
			case <-time.After(sendPause):
			case <-ctx.Done():
				return ctx.Err() //nolint:wrapcheck // who interrupts knows
			}
		}
	}
	return nil
}

// barred shows how much was written.
type barred struct {
	to          io.Writer
	bar         *bar
	done, total model.Bytes
}

func (b *barred) Write(p []byte) (int, error) {
	n, err := b.to.Write(p)
	b.done += model.Bytes(n)
	b.bar.set("fetch", int64(b.done), int64(b.total))
	return n, err //nolint:wrapcheck // it is the writer
}

func newVMImport(a *app) *cobra.Command {
	var name, sum string
	c := &cobra.Command{
		Use: "import FILE", Short: "Make a machine of an export or an OVA",
		Long: `Make a machine of an archive that drystone vm export wrote, or of an OVA: with its disks, its
processors, its memory and its network cards, as far as there are networks of the same names.

When sending is interrupted the same command goes on where it was.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open the archive: %w", err)
			}
			defer letGo(file)
			// What is sent has a name of its own, which nothing is called by later.
			spec := schema.UploadSpec{Name: "vm-import", File: filepath.Base(args[0]), Copies: 2}
			if err := describe(file, &spec); err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				return a.importVM(cmd.Context(), c, file, spec, schema.VMImportSpec{Name: name, SHA256: strings.ToLower(sum)})
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the machine (default: as the archive says)")
	c.Flags().StringVar(&sum, "sha256", "", "digest that the file must have, in hex")
	return c
}

func (a *app) importVM(ctx context.Context, c *client.Client, file *os.File, up schema.UploadSpec, spec schema.VMImportSpec) error {
	bar := a.progress("read")
	defer bar.end()
	u, sum, err := a.send(ctx, c, file, up, spec.SHA256, bar)
	if err != nil {
		return err
	}
	spec.SHA256 = sum
	vm, notes, err := c.ImportVM(ctx, u.ID, spec, func(e schema.ImportEvent) {
		bar.set(e.Phase, int64(e.Done), int64(e.Total))
	})
	bar.end()
	if err != nil {
		return err
	}
	return show(a, schema.ImportEvent{VM: &vm, Notes: notes}, func(w io.Writer, e schema.ImportEvent) {
		for _, n := range e.Notes {
			say(w, "%s\n", n)
		}
		say(w, "machine %s is imported\n", e.VM.Name)
	})
}
