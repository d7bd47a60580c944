package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newImage(a *app) *cobra.Command {
	all := &cobra.Command{
		Use: "list", Short: "List the images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				images, err := c.Images(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, images, "There are no images.", volumeHeader, volumeRow)
			})
		},
	}
	uploads := &cobra.Command{
		Use: "uploads", Short: "List the image files that are being sent to a node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				uploads, err := c.Uploads(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, uploads, "Nothing is being sent to this node.", "ID NAME FILE SENT SIZE USER EXPIRES", uploadRow)
			})
		},
	}
	forget := &cobra.Command{
		Use: "forget UPLOAD", Short: "Forget an image file that was not sent to its end", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := model.ParseID[model.UploadID](args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				if err := c.DeleteUpload(cmd.Context(), id); err != nil {
					return err
				}
				a.said("upload %s is forgotten", id)
				return nil
			})
		},
	}
	return group("image", "Images that machines are made from", newImageUpload(a), newImageFetch(a), all, uploads, forget)
}

func uploadRow(u schema.Upload) []string {
	return []string{
		u.ID.String(), u.Name, dash(u.File), size(u.Offset), size(u.Size), u.User,
		u.Expires.Local().Format(time.DateTime),
	}
}

func newImageUpload(a *app) *cobra.Command {
	var name, format, sum string
	var copies int
	c := &cobra.Command{
		Use: "upload FILE", Aliases: []string{"import"}, Short: "Make a volume of an image file",
		Long: `Make a volume of an image file: qcow2, raw (also ISO), VMDK, VHDX, VHD, or an OVA with one disk.

When it is interrupted the same command goes on where it was, if it speaks to the same node
within a day. Everything that arrives is compared with what was sent.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := formatOf(format, args[0])
			if err != nil {
				return err
			}
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
			}
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open the image: %w", err)
			}
			defer letGo(file)
			spec := schema.UploadSpec{Name: name, File: filepath.Base(args[0]), Format: f, Copies: copies}
			if err := describe(file, &spec); err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				return a.uploadImage(cmd.Context(), c, file, spec, strings.ToLower(sum))
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the volume (default: the file's)")
	c.Flags().StringVar(&format, "format", "", formatHelp)
	c.Flags().StringVar(&sum, "sha256", "", "digest that the file must have, in hex")
	c.Flags().IntVar(&copies, "copies", 2, "how many disks have each piece, 2 or 3")
	return c
}

func newImageFetch(a *app) *cobra.Command {
	in := schema.ImageFetch{}
	var format string
	c := &cobra.Command{
		Use: "fetch URL", Short: "Have a node download an image file from the internet",
		Long: `Have a node download an image file from the internet and make a volume of it.

Nothing is fetched from addresses of private networks, of the node's own networks or of the
cluster, also not by way of a name or a redirect: upload such files.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil {
				return usagef("that is no address of a file")
			}
			if in.Format, err = formatOf(format, u.Path); err != nil {
				return err
			}
			if base := path.Base(u.Path); in.Name == "" {
				in.Name = strings.TrimSuffix(base, path.Ext(base))
			}
			in.URL, in.SHA256 = args[0], strings.ToLower(in.SHA256)
			return a.with(cmd, func(c *client.Client) error {
				bar := a.progress("fetch")
				defer bar.end()
				v, err := c.FetchImage(cmd.Context(), in, func(e schema.ImportEvent) {
					bar.set(e.Phase, int64(e.Done), int64(e.Total))
				})
				bar.end()
				return a.imported(v, err)
			})
		},
	}
	c.Flags().StringVar(&in.Name, "name", "", "name of the volume (default: the file's)")
	c.Flags().StringVar(&format, "format", "", formatHelp)
	c.Flags().StringVar(&in.SHA256, "sha256", "", "digest that the file must have, in hex")
	c.Flags().IntVar(&in.Copies, "copies", 2, "how many disks have each piece, 2 or 3")
	return c
}

const formatHelp = "qcow2, raw, vmdk, vhdx, vhd or ova (default: by the file's name, or found by what is in it)"

// imported says what became of an image.
func (a *app) imported(v schema.Volume, err error) error {
	if err != nil {
		return err
	}
	return show(a, v, func(w io.Writer, v schema.Volume) {
		say(w, "image %s of %s is imported\n", v.Name, size(v.Size))
	})
}

// formatOf is the format that is said, by the flag or the end of a file's name: a file that
// is called a qcow2 and is none is refused and not taken for raw data. What says nothing
// (.img) the node finds by what is in the file.
func formatOf(flag, file string) (schema.ImageFormat, error) {
	if flag == "" {
		end := schema.ImageFormat(strings.TrimPrefix(strings.ToLower(filepath.Ext(file)), "."))
		switch {
		case end == "iso":
			return schema.Raw, nil
		case slices.Contains(schema.ImageFormats, end):
			return end, nil
		}
		return schema.FoundFormat, nil
	}
	if f := schema.ImageFormat(flag); slices.Contains(schema.ImageFormats, f) {
		return f, nil
	}
	return "", usagef("an image is qcow2, raw, vmdk, vhdx, vhd or ova, not %q", flag)
}

// markEnds is how much of a file's beginning and end goes into its mark.
const markEnds = 1 << 20

// describe says how large a file is and how to know it again: by its size, when it was
// changed, and what it begins and ends with.
func describe(file *os.File, spec *schema.UploadSpec) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("look at the image: %w", err)
	}
	if !info.Mode().IsRegular() {
		return usagef("%s is not a file", file.Name())
	}
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(info.Size())))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(info.ModTime().UnixNano())))
	for _, off := range []int64{0, max(0, info.Size()-markEnds)} {
		if _, err := io.Copy(h, io.NewSectionReader(file, off, markEnds)); err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
	}
	spec.Size, spec.Mark = model.Bytes(info.Size()), hex.EncodeToString(h.Sum(nil))
	return nil
}

func (a *app) uploadImage(ctx context.Context, c *client.Client, file *os.File, spec schema.UploadSpec, want string) error {
	bar := a.progress("read")
	defer bar.end()
	u, sum, err := a.send(ctx, c, file, spec, want, bar)
	if err != nil {
		return err
	}
	v, err := c.FinishUpload(ctx, u.ID, schema.UploadEnd{SHA256: sum}, func(e schema.ImportEvent) {
		bar.set(e.Phase, int64(e.Done), int64(e.Total))
	})
	bar.end()
	return a.imported(v, err)
}

// send sends what the node has not got of a file, and returns its digest.
func (a *app) send(ctx context.Context, c *client.Client, file *os.File, spec schema.UploadSpec, want string, bar *bar,
) (u schema.Upload, sum string, err error) {
	if u, err = resumed(ctx, c, spec); err != nil {
		return u, "", err
	}
	bar.set("read", 0, int64(u.Offset))
	s := &sender{client: c, file: file, bar: bar, sum: sha256.New(), upload: u}
	if err := s.send(ctx); err != nil {
		if ctx.Err() != nil {
			return u, "", model.Errorf(model.Unavailable, "interrupted after %s of %s; the same command goes on there",
				size(s.upload.Offset), size(s.upload.Size))
		}
		return u, "", err
	}
	sum = hex.EncodeToString(s.sum.Sum(nil))
	if want != "" && want != sum {
		return u, "", errors.Join(model.Errorf(model.Invalid, "the file has the SHA-256 %s, not %s", sum, want),
			c.DeleteUpload(ctx, u.ID))
	}
	return u, sum, nil
}

// resumed finds the upload of a file that was interrupted before, or begins one.
func resumed(ctx context.Context, c *client.Client, spec schema.UploadSpec) (schema.Upload, error) {
	before, err := c.Uploads(ctx)
	if err != nil {
		return schema.Upload{}, err
	}
	for _, u := range before.Items {
		if u.Mark == spec.Mark && u.Size == spec.Size && u.Name == spec.Name && u.Format == spec.Format && u.Copies == spec.Copies {
			return u, nil
		}
	}
	return c.CreateUpload(ctx, spec)
}

// A sender sends what a node does not have of a file.
type sender struct {
	client *client.Client
	file   *os.File
	bar    *bar
	sum    hash.Hash // of what the node has
	upload schema.Upload
}

func (s *sender) send(ctx context.Context) error {
	if _, err := io.Copy(s.sum, s.bar.reader(io.NewSectionReader(s.file, 0, int64(s.upload.Offset)))); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	buf := make([]byte, min(client.MaxChunk, int64(s.upload.Size)))
	for s.upload.Offset < s.upload.Size {
		s.bar.set("send", int64(s.upload.Offset), int64(s.upload.Size))
		chunk := buf[:min(int64(len(buf)), int64(s.upload.Size-s.upload.Offset))]
		if _, err := s.file.ReadAt(chunk, int64(s.upload.Offset)); err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
		if err := s.chunk(ctx, chunk); err != nil {
			return err
		}
		s.sum.Write(chunk)
	}
	return nil
}

// The pauses between tries to reach the node, and how long it may be away.
const (
	sendPause    = time.Second
	sendPatience = 2 * time.Minute
)

// chunk sends a piece until the node has it. A node that is away for a while, or still
// waits for the rest of a request that broke, is asked again.
func (s *sender) chunk(ctx context.Context, chunk []byte) error {
	began := time.Now()
	end := s.upload.Offset + model.Bytes(len(chunk))
	for {
		u, err := s.client.AppendUpload(ctx, s.upload.ID, s.upload.Offset, chunk)
		if code := model.CodeOf(err); code == model.Unavailable || code == model.Conflict {
			if now, late := s.client.Upload(ctx, s.upload.ID); late == nil && now.Offset == end {
				u, err = now, nil // only the answer was lost
			}
		}
		if err == nil {
			s.upload = u
			if u.Offset != end {
				return model.Errorf(model.Conflict, "somebody else sends to the upload %s", u.ID)
			}
			return nil
		}
		code := model.CodeOf(err)
		if code != model.Unavailable && code != model.Conflict || time.Since(began) > sendPatience {
			return err
		}
		select {
		case <-time.After(sendPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
